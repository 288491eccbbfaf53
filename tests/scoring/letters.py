"""A Backend of a few lines, exact and without torch: a token is a letter, probabilities count vowels and length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.records import ScorerInfo
from corpuscore.scoring.scorer import Tokens

START, END = 1, 2
_INFO = ScorerInfo(("vowels", "length"), "sigmoid", "0" * 16, "letters", "fp32", "letters")


class Letters:
    """Counts what goes through it.

    Attributes:
        texts_seen: Texts tokenized.
        packs: Sequences of each forward pass.
        memory: Tokens that a forward pass may have before it runs out of memory.
    """

    info = _INFO
    special_tokens = (1, 1)
    token_budget = 64

    def __init__(self, memory: int = 10**9) -> None:
        self.texts_seen = 0
        self.packs: list[int] = []
        self.memory = memory

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Letters as their code points, between START and END."""
        count = len(texts)
        self.texts_seen += count  # in one step, since calls overlap
        room = None if max_tokens is None else max_tokens - 2
        rows = [[START, *map(ord, text[:room]), END] for text in texts]
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        cut = np.array([room is not None and len(text) > room for text in texts], np.bool_)
        return Tokens(np.array([token for row in rows for token in row], np.int32), offsets, cut)

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Share of vowels, and 1 / length."""
        if len(tokens.ids) > self.memory:
            raise MemoryError
        self.packs.append(len(tokens.lengths))
        pieces = np.split(tokens.ids, tokens.offsets[1:-1])
        return np.array([letter_scores("".join(map(chr, piece[1:-1]))) for piece in pieces], np.float32).reshape(-1, 2)


class PipelinedLetters(Letters):
    """The same, as an accelerator would do it: results come when they are asked for.

    Attributes:
        most_under_way: Passes that were under way at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._under_way = 0
        self.most_under_way = 0

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Start a pass."""
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        return lambda: self._collect(tokens)

    def _collect(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        self._under_way -= 1
        return self.forward(tokens)


class LettersByCore(Letters):
    """The same, as a CPU of two cores would do it: a pass on each."""

    cores = 2

    def forward_on_core(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Like forward."""
        return self.forward(tokens)


def letter_scores(text: str) -> tuple[float, float]:
    """What Letters says of a text."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text)), 1 / (1 + len(text))
