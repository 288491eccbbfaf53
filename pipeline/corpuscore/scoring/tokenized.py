"""What every backend has besides its model: the checkpoint's tokenizer, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.records import ScorerInfo
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens


class TokenizedBackend:
    """The half of a Backend that does not depend on the device.

    Args:
        checkpoint: Where the tokenizer lies.
        info: What the backend is.
        threads: Of the tokenizer.
    """

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, threads: int | None) -> None:
        self._info = info
        self._tokenizer = checkpoint.tokenizer(threads)

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._info

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text."""
        return self._tokenizer.special_tokens

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, cut to max_tokens where given."""
        return self._tokenizer.encode(texts, max_tokens)


class QueuedBackend(TokenizedBackend, ABC):
    """A Backend that queues its passes: the next pack is prepared, and queued behind, while one runs."""

    @abstractmethod
    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack, and return what waits for its rows; thread-safe.

        Raises:
            MemoryError: The device's memory does not hold the pack.
        """

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L], waiting for them; packs that are under way stay as they are.

        Raises:
            MemoryError: The device's memory does not hold the pack.
        """
        return self.submit(tokens)()
