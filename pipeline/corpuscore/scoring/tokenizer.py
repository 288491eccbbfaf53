"""Texts to flat token ids, with the Rust tokenizer that came with a checkpoint.

A long text is cut before it is tokenized, since the tokenizer takes a second for a megabyte of which 512 tokens are
wanted; the cut is taken back wherever it could have changed a token that is kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from corpuscore.errors import ModelError
from corpuscore.scoring.scorer import Tokens

#: Characters a token that the first cut allows for; English WordPiece takes 4.4.
_CHARACTERS_A_TOKEN = 8
#: Tokens at a cut that could have come out differently with more text after them; they must not be among those kept.
_MARGIN_TOKENS = 64
#: Characters before a cut among which a blank is sought, so that no word is split.
_WORD_REACH = 256
#: Letters of alphabets with words (each stays one letter when accents are stripped), for _Squeeze.
_LONG_WORD = re.compile(
    "([0-9A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f]{400})[0-9A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f]+"
)
_BLANKS = re.compile(r"[ \t\n\r]{2,}")

_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds tokenizer.json, or a vocabulary that transformers can convert."""
    return any((folder / name).is_file() for name in ("tokenizer.json", *_VOCABULARIES))


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer without padding or truncation of its own. Thread-safe; the work is done outside the GIL.

    Attributes:
        rust: The tokenizer.
        prefix, suffix: Ids of the special tokens before and after each text.
        squeezes: Whether very long words and runs of blanks may be shortened without changing a token (WordPiece).
    """

    rust: tokenizers.Tokenizer
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    squeezes: bool

    @classmethod
    def load(cls, folder: Path, model: str, threads: int | None = None) -> TextTokenizer:
        """Read the tokenizer of a checkpoint.

        Args:
            folder: Where tokenizer.json, or a vocabulary to convert, lies.
            model: Name for messages.
            threads: Threads of encode; they are settled by the first tokenizer that a process uses.

        Raises:
            ModelError: It cannot be read.
        """
        _set_threads(threads)
        with _translated(model):
            if (folder / "tokenizer.json").is_file():
                return cls.from_rust(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
        from corpuscore.scoring.vocabulary import convert_tokenizer

        with _translated(model):
            return cls.from_rust(convert_tokenizer(folder, model))

    @classmethod
    def from_rust(cls, rust: tokenizers.Tokenizer) -> TextTokenizer:
        """Take over a tokenizer: its padding and truncation are switched off."""
        rust.no_padding()
        rust.no_truncation()
        (plain,) = rust.encode_batch_fast(["a"], add_special_tokens=False)
        (whole,) = rust.encode_batch_fast(["a"])
        places = (i for i in range(len(whole.ids) + 1) if whole.ids[i : i + len(plain.ids)] == plain.ids)
        if (before := next(places, None)) is None:
            raise ValueError(f"its special tokens change the tokens of a text: {plain.ids} become {whole.ids}")
        suffix = whole.ids[before + len(plain.ids) :]
        return cls(rust, tuple(whole.ids[:before]), tuple(suffix), _is_bert_wordpiece(rust))

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text."""
        return len(self.prefix), len(self.suffix)

    def encode(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, each cut to max_tokens in all where given."""
        if max_tokens is None:
            return self._join(self._contents(texts), None)
        room = max_tokens - len(self.prefix) - len(self.suffix)
        contents = self._heads(texts, room)
        truncated = np.fromiter((len(content) > room for content in contents), np.bool_, len(contents))
        kept = [content[:room] if long else content for content, long in zip(contents, truncated, strict=True)]
        return self._join(kept, truncated)

    def _contents(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.rust.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _heads(self, texts: Sequence[str], room: int) -> list[list[int]]:
        """Content ids of each text: all of them, or at least the first room + 1, exactly as of the whole text."""
        reach, enough = (room + _MARGIN_TOKENS) * _CHARACTERS_A_TOKEN, room + _MARGIN_TOKENS
        contents = self._contents([_head(text, reach) for text in texts])
        longer = {
            i: self._squeeze(text) for i, text in enumerate(texts) if len(text) > reach and len(contents[i]) < enough
        }
        while longer:
            reach *= 4
            for i, content in zip(
                longer, self._contents([_head(text, reach) for text in longer.values()]), strict=True
            ):
                contents[i] = content
            longer = {i: text for i, text in longer.items() if len(text) > reach and len(contents[i]) < enough}
        return contents

    def _squeeze(self, text: str) -> str:
        """Shorten what WordPiece drops or takes as one unknown token anyway, so that megabytes of it cost nothing."""
        return _LONG_WORD.sub(r"\1", _BLANKS.sub(" ", text)) if self.squeezes else text

    def _join(self, contents: list[list[int]], truncated: npt.NDArray[np.bool_] | None) -> Tokens:
        special = len(self.prefix) + len(self.suffix)
        offsets = np.fromiter(accumulate((len(content) + special for content in contents), initial=0), np.int64)
        pieces = chain.from_iterable((self.prefix, content, self.suffix) for content in contents)
        ids = np.fromiter(chain.from_iterable(pieces), np.int32, int(offsets[-1]))
        return Tokens(ids, offsets, truncated)


@contextmanager
def _translated(model: str) -> Iterator[None]:
    """Say whose tokenizer it is. The Rust library raises Exception itself, and its panics are not even that."""
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


def _head(text: str, reach: int) -> str:
    """At most the first `reach` characters, up to the last blank near their end."""
    if len(text) <= reach:
        return text
    near = text[reach - _WORD_REACH : reach]
    kept = near.rstrip() if near[-1].isspace() else (near.rsplit(None, 1)[0] if len(near.split(None, 1)) > 1 else near)
    return text[: reach - _WORD_REACH] + kept


def _is_bert_wordpiece(rust: tokenizers.Tokenizer) -> bool:
    """Whether blanks only separate, and a word above 100 letters is one unknown token, as in BERT's own tokenizer."""
    state: dict[str, Any] = json.loads(rust.to_str())
    kinds = [(state[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    bert = kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
    return bert and state["model"]["max_input_chars_per_word"] < 400


def _set_threads(threads: int | None) -> None:
    """Tell the tokenizer's thread pool its size; it reads the environment when it first starts."""
    if threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
