"""What every backend has besides its model: the checkpoint's tokenizer, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence

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
