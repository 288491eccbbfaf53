"""Where the tokenizer of a checkpoint comes from: from tokenizer.json by itself, or from what transformers answers."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers

from corpuscore.errors import ModelError
from corpuscore.scoring.tokenization.agreement import speaks_for_itself
from corpuscore.scoring.tokenization.asking import Script, ask
from corpuscore.scoring.tokenization.files import TOKENIZER_FILES, Side, TokenizerFiles, translated


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """The tokenizer of a folder, not loaded yet.

    Attributes:
        side: Where long texts are cut.
        identity: What tells its tokens apart, where the files alone do not; empty where they do.
        highest: The last id of its own vocabulary, -1 where that is empty.
        added: Tokens that were added to the vocabulary, by id.
        longest: Tokens that transformers cuts texts to where nobody says another number; None where it cuts none.
        splits_special_tokens: Whether special tokens that are written in a text are text.
        script: The tokenizer, where it is written in Python.
    """

    side: Side
    identity: str
    highest: int
    added: Mapping[int, str]
    longest: int | None
    splits_special_tokens: bool
    script: Script | None
    _state: str | Path

    def rust(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer, of which there is none where `script` is one.

        Raises:
            Exception: The library's own, where it cannot be read.
        """
        if isinstance(self._state, Path):
            return tokenizers.Tokenizer.from_file(str(self._state))
        found = tokenizers.Tokenizer.from_str(self._state)
        found.encode_special_tokens = self.splits_special_tokens
        return found


def find_source(folder: Path, model: str) -> TokenizerSource:
    """Read the tokenizer's files, and ask transformers where tokenizer.json does not say all.

    Args:
        folder: Where the checkpoint lies.
        model: Name for messages.

    Raises:
        ModelError: The files are none of a tokenizer.
    """
    stats = [path.stat() if (path := folder / name).exists() else None for name in ("config.json", *TOKENIZER_FILES)]
    with translated(model):
        return _find(folder, model, tuple(stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats))


@lru_cache(maxsize=4)
def _find(folder: Path, model: str, stats: tuple[Any, ...]) -> TokenizerSource:  # noqa: ARG001  (the key of the cache)
    files = TokenizerFiles.read(folder, model)
    side = files.side
    if (folder / "tokenizer.json").exists():
        found = _ids(files.state, model)  # what is broken is said of the file itself, not in transformers' words
        if speaks_for_itself(files):
            identity = "" if side == "right" else side
            return TokenizerSource(side, identity, *found, files.longest, False, None, folder / "tokenizer.json")
    answer = ask(files)
    found = _ids_of_script(answer.script) if answer.script else _ids(json.loads(answer.state), model)
    splits, script, state = answer.splits_special_tokens, answer.script, answer.state
    return TokenizerSource(answer.side, answer.identity, *found, files.longest, splits, script, state)


def _ids(state: Mapping[str, Any], model: str) -> tuple[int, dict[int, str]]:
    """The last id of a tokenizer.json's vocabulary, and its added tokens that are not in it.

    Source: https://huggingface.co/docs/tokenizers (a vocabulary maps tokens to ids; Unigram lists them in their order)
    """
    try:
        vocabulary = state["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        highest = max(map(operator.index, ids), default=-1)
        added = {operator.index(token["id"]): str(token["content"]) for token in state.get("added_tokens") or ()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Model {model}: tokenizer.json cannot be read ({type(error).__name__}: {error})",
            next_step="save the tokenizer again",
        ) from None
    return highest, added


def _ids_of_script(script: Script) -> tuple[int, dict[int, str]]:
    own = (index for token, index in script.vocabulary.items() if token not in script.added)
    return max(own, default=-1), {index: token for token, index in script.added.items()}
