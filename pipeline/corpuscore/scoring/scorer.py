"""The two seams of scoring: a Scorer for everyone above, a Backend for the files in backends/.

    texts -> Scorer.stream -> [tokenize -> pack -> Backend.forward] -> Scores, in input order

Shape suffixes: D documents, L labels, T tokens, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from corpuscore.records import ScorerInfo, Skipped


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of many sequences end to end; never padded.

    Attributes:
        ids: int32 [T], special tokens included.
        offsets: int64 [S + 1]; sequence s is ids[offsets[s]:offsets[s + 1]].
        truncated: bool [S], whether a sequence was cut to fit; None where nothing was.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_] | None = None

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sequence: int64 [S]."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a model is computed with on one machine; another arithmetic gives other scores, if only in the last bits.

    Attributes:
        precision: What runs, where that is not what was asked for: int8 may mean fp32.
        kind: Tells apart what gives other bits in one precision, such as fma.2 for kernels of revision 2 with
            multiply-adds; empty where nothing does, or nothing is known.
    """

    precision: str
    kind: str = ""


class Backend(Protocol):
    """A loaded model behind one file of backends/: tokens to probabilities; it knows nothing of documents."""

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        ...

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text; windows of long documents repeat them."""
        ...

    @property
    def token_budget(self) -> int:
        """Tokens of one forward pass that suit the device, where the user names no number."""
        ...

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, each cut to max_tokens where given; thread-safe, releases the GIL."""
        ...

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L], a row a sequence, independent of the other sequences."""
        ...


@runtime_checkable
class Pipelined(Protocol):
    """What a backend on an accelerator has besides: it takes the next pack while the last one still runs."""

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Start a forward pass without waiting; the result waits for it.

        Thread-safe: several streams may have passes under way.

        Raises:
            MemoryError: The device's memory does not hold the pack; the engine halves it.
        """
        ...


@runtime_checkable
class ByCore(Protocol):
    """What a backend on a CPU may have besides: passes that keep to a core each, as good as one on all of them."""

    @property
    def cores(self) -> int:
        """How many passes at once have all cores at work."""
        ...

    def forward_on_core(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Like forward, and bit for bit the same; thread-safe, releases the GIL."""
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a batch of documents, in input order.

    Attributes:
        probabilities_DL: float32; NaN rows where `failed` has the document.
        tokens_D: int32, tokens that were used for each document.
        truncated_D: bool, whether more tokens were there than were used.
        failed: Why, by index, for documents that could not be scored even alone.
    """

    probabilities_DL: npt.NDArray[np.float32]
    tokens_D: npt.NDArray[np.int32]
    truncated_D: npt.NDArray[np.bool_]
    failed: dict[int, Skipped] = field(default_factory=dict)


@dataclass(slots=True)
class Meter:
    """What a stream has done so far; filled while it runs.

    Attributes:
        busy: Seconds that each step needed: read, tokenize, pack, forward. They overlap; the largest is the limit. What
            the tokenizer did ahead of need is not counted.
        tokens: Tokens through the model.
        unique_texts: Texts through the model.
        rows: Documents that have their scores, or their reason for having none.
    """

    busy: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    unique_texts: int = 0
    rows: int = 0


class Scorer(Protocol):
    """A loaded model with its engine."""

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        ...

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [D, L] in input order."""
        ...

    def stream(self, batches: Iterable[Sequence[str]], meter: Meter | None = None) -> Iterator[Scores]:
        """One Scores for each batch, in order, with reading, tokenizing, packing and the forward pass overlapped.

        The iterable is pulled from a thread of the engine. Identical texts of the stream are scored once.
        """
        ...
