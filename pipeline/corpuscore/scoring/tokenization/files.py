"""The JSON files that a tokenizer was saved as, read as what they are: anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from corpuscore.errors import ModelError
from corpuscore.scoring.configuration import TOKENIZER_BYTES, read_json

Side = Literal["left", "right"]

#: Vocabularies that transformers makes a tokenizer of where there is no tokenizer.json, by its converters.
SENTENCEPIECE = ("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model", "source.spm",
                 "tokenizer.model")  # fmt: skip
VOCABULARIES = ("vocab.txt", "vocab.json", "bpe.codes", "tiktoken.model", "tekken.json", *SENTENCEPIECE)

#: Files that a tokenizer may consist of; those that are there go into the fingerprint.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    *VOCABULARIES,
)  # fmt: skip


#: Model types whose tokens are bytes or characters, so that they need no vocabulary.
_WITHOUT_VOCABULARY = ("canine", "perceiver")


def has_tokenizer(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds tokenizer.json, or a vocabulary that transformers can convert, or needs neither."""
    found = any((folder / name).is_file() for name in ("tokenizer.json", *VOCABULARIES))
    return found or config.get("model_type") in _WITHOUT_VOCABULARY


@contextmanager
def translated(model: str) -> Iterator[None]:
    """Say whose tokenizer it is. The Rust library raises Exception itself, and its panics are not even that.

    Raises:
        ModelError: For whatever the library raises.
    """
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"Model {model}: tokenizer.json cannot be read ({str(error)[:300]})", next_step="save the tokenizer again"
        ) from error


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files say; empty where one is missing.

    Attributes:
        folder: Where they lie.
        model: Name for messages.
        state: tokenizer.json.
        settings: tokenizer_config.json.
        special: special_tokens_map.json.
        added: added_tokens.json.
        config: config.json.
    """

    folder: Path
    model: str
    state: Mapping[str, Any]
    settings: Mapping[str, Any]
    special: Mapping[str, Any]
    added: Mapping[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, model: str) -> TokenizerFiles:
        """Read those that are there.

        Raises:
            ModelError: One is no JSON object, or too large.
        """

        def read(name: str) -> dict[str, Any]:
            path = folder / name
            return read_json(path, model, TOKENIZER_BYTES) if path.exists() else {}

        return cls(
            folder,
            model,
            read("tokenizer.json"),
            read("tokenizer_config.json"),
            read("special_tokens_map.json"),
            read("added_tokens.json"),
            read("config.json"),
        )

    @property
    def longest(self) -> int | None:
        """Tokens that transformers cuts texts to where nobody says another number; None where it cuts none."""
        said = self.settings.get("model_max_length")
        return said if type(said) is int else None

    @property
    def side(self) -> Side:
        """Where a long text is cut: tokenizer_config.json decides, then tokenizer.json, then it is the right.

        Raises:
            ModelError: It is cut where no text ends.
        """
        stored = self.state.get("truncation")
        direction = stored.get("direction") if isinstance(stored, dict) else None
        side = self.settings.get("truncation_side", direction or "right")
        if not isinstance(side, str) or side.lower() not in ("left", "right"):
            raise ModelError(
                f"Model {self.model}: truncation_side is {repr(side)[:100]}",
                rule="a long text is cut at its left or its right",
                next_step="correct tokenizer_config.json",
            )
        return cast(Side, side.lower())
