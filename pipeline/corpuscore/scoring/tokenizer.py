"""Texts to flat token ids, with the tokenizer that came with a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from corpuscore.errors import ModelError
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenization import cutting
from corpuscore.scoring.tokenization.asking import Script
from corpuscore.scoring.tokenization.files import Side, translated
from corpuscore.scoring.tokenization.source import find_source

#: Characters a token that the first cut allows for; English WordPiece takes 4.4.
_CHARACTERS_A_TOKEN = 8
#: Tokens at a cut that could have come out differently with more text beyond it; they must not be among those kept.
_MARGIN_TOKENS = 64
#: Texts whose tokens with and without special tokens tell where these stand.
_PROBES = ("a", "b 7.", "")
#: Tokens that are tried as texts where these have none.
_MORE_PROBES = 256

Contents = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer without padding or truncation of its own. Thread-safe; Rust does its work outside the GIL.

    Attributes:
        contents: Ids of whole texts without special tokens.
        prefix, suffix: Ids of the special tokens before and after each text.
        side: Where a long text is cut.
        cuts: Whether a long text may be cut before it is tokenized.
        squeezes: Whether very long words and runs of blanks may be shortened without changing a token (WordPiece).
        rows: Rows of the embedding, which the ids of texts must not exceed. None: any id will do.
        added: Added tokens by id, for messages.
    """

    contents: Contents
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    side: Side = "right"
    cuts: bool = True
    squeezes: bool = False
    rows: int | None = None
    added: dict[int, str] = field(default_factory=dict)
    _rust: tokenizers.Tokenizer | None = None

    @classmethod
    def load(cls, folder: Path, model: str, threads: int | None = None) -> TextTokenizer:
        """The tokenizer of a checkpoint: that which transformers' AutoTokenizer makes of its files.

        Args:
            folder: Where they lie.
            model: Name for messages.
            threads: Threads of encode; they are settled by the first tokenizer that a process uses.

        Raises:
            ModelError: It cannot be read.
        """
        _set_threads(threads)
        with translated(model):
            source = find_source(folder, model)
            if source.script is not None:
                return cls.from_script(source.script, source.side)
            return cls.from_rust(source.rust(), source.side)

    @classmethod
    def from_rust(cls, rust: tokenizers.Tokenizer, side: Side = "right") -> TextTokenizer:
        """Take over a tokenizer: its padding and truncation are switched off.

        Raises:
            ValueError: Its special tokens are not before and after each text.
        """
        rust.no_padding()
        rust.no_truncation()
        contents = partial(_rust_ids, rust, special=False)
        prefix, suffix = _ends(partial(_rust_ids, rust, special=True), contents, rust.get_vocab)
        return cls(contents, prefix, suffix, side, squeezes=_is_bert_wordpiece(rust), _rust=rust)

    @classmethod
    def from_script(cls, script: Script, side: Side) -> TextTokenizer:
        """Take over a tokenizer that is written in Python.

        Raises:
            ValueError: Its special tokens are not before and after each text.
        """
        contents = partial(script.ids, special=False)
        prefix, suffix = _ends(partial(script.ids, special=True), contents, lambda: script.vocabulary)
        return cls(contents, prefix, suffix, side, cuts=False)

    @property
    def rust(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer.

        Raises:
            ModelError: It is written in Python.
        """
        if self._rust is None:
            raise ModelError(
                "The tokenizer is written in Python",
                rule="a student's vocabulary is cut from one that the tokenizers library runs",
                next_step="use a teacher with tokenizer.json",
            )
        return self._rust

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text."""
        return len(self.prefix), len(self.suffix)

    def encode(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, each cut to max_tokens in all where given.

        Raises:
            ValueError: One of the texts has a token without a row in the embedding.
        """
        if max_tokens is None:
            return self._join(self.contents(texts), None)
        room = max_tokens - len(self.prefix) - len(self.suffix)
        contents = self._enough(texts, room)
        truncated = np.fromiter((len(content) > room for content in contents), np.bool_, len(contents))
        kept = [
            self._cut(content, room) if long else content for content, long in zip(contents, truncated, strict=True)
        ]
        return self._join(kept, truncated)

    def _cut(self, content: list[int], room: int) -> list[int]:
        return content[len(content) - room :] if self.side == "left" else content[:room]

    def _enough(self, texts: Sequence[str], room: int) -> list[list[int]]:
        """Content ids of each text: all, or at least room + 1 on the side that is kept, as those of the whole text."""
        if not self.cuts:
            return self.contents(texts)
        reach, enough = (room + _MARGIN_TOKENS) * _CHARACTERS_A_TOKEN, room + _MARGIN_TOKENS
        if self.side == "left":  # which finds no cut in a word without end
            texts = [self._squeezed(text) if len(text) > reach else text for text in texts]
        contents = self.contents([cutting.part(text, reach, self.side) for text in texts])
        longer = {
            i: self._squeezed(text) for i, text in enumerate(texts) if len(text) > reach and len(contents[i]) < enough
        }
        while longer:
            reach *= 4
            pieces = [cutting.part(text, reach, self.side) for text in longer.values()]
            for i, content in zip(longer, self.contents(pieces), strict=True):
                contents[i] = content
            longer = {i: text for i, text in longer.items() if len(text) > reach and len(contents[i]) < enough}
        return contents

    def _squeezed(self, text: str) -> str:
        return cutting.squeezed(text) if self.squeezes else text

    def _join(self, contents: list[list[int]], truncated: npt.NDArray[np.bool_] | None) -> Tokens:
        special = len(self.prefix) + len(self.suffix)
        offsets = np.fromiter(accumulate((len(content) + special for content in contents), initial=0), np.int64)
        pieces = chain.from_iterable((self.prefix, content, self.suffix) for content in contents)
        ids = np.fromiter(chain.from_iterable(pieces), np.int32, int(offsets[-1]))
        if self.rows is not None and (highest := int(ids.max(initial=0))) >= self.rows:
            token = self.added.get(highest, highest)
            raise ValueError(f"token {token!r} has id {highest}, and the embedding {self.rows} rows")
        return Tokens(ids, offsets, truncated)


def _rust_ids(rust: tokenizers.Tokenizer, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    return [encoding.ids for encoding in rust.encode_batch_fast(list(texts), add_special_tokens=special)]


def _ends(
    whole: Contents, plain: Contents, vocabulary: Callable[[], Iterable[str]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after each text.

    Args:
        whole, plain: Ids of texts with and without them.
        vocabulary: Tokens, some of which may be texts that have tokens, where _PROBES have none.

    Raises:
        ValueError: There is more to them, or no text is found that has tokens.
    """
    texts = _PROBES if any(plain(_PROBES)) else (*islice(vocabulary(), _MORE_PROBES), "")
    pairs = sorted(zip(whole(texts), plain(texts), strict=True), key=lambda pair: not pair[1])
    first, inner = pairs[0]
    if first and not inner:
        raise ValueError("it has no tokens for any text that was tried")
    for before in range(len(first) - len(inner) + 1):
        prefix, suffix = first[:before], first[before + len(inner) :]
        if all(ids == prefix + content + suffix for ids, content in pairs):
            return tuple(prefix), tuple(suffix)
    raise ValueError(f"its special tokens change the tokens of a text: {inner} become {first}")


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
