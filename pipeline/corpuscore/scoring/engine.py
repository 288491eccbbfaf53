"""The engine: texts in, scores out in the same order, every step in a thread of its own.

    read -> tokenize (each distinct text once) -> pack -> forward -> Scores
         |                                    |         |
         bounded queues between them: memory depends on the token budget, not on the corpus

Texts gather in pools of many packs, so that a pack holds texts of like length. A pool is settled when its last pack
is; batches come out when the pool with their last text is settled, which is in order because pools are.

Shape suffixes: D documents, L labels, S sequences (windows of documents), T tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from corpuscore.records import LongDocuments, ScorerInfo, Skipped
from corpuscore.scoring import packing
from corpuscore.scoring.passes import Found, Passes, Rows
from corpuscore.scoring.scorer import Backend, Meter, Scores, Tokens
from corpuscore.scoring.texts import Text, note, scores_of, slices
from corpuscore.scoring.threads import Stopwatch, ahead, timed

#: A pool is closed at so many packs' worth of tokens, or so many texts.
POOL_PACKS = 16
POOL_TEXTS = 8_192
#: Calls of the tokenizer under way at once: while its own threads are at work for one, the ids of the other are
#: gathered in Python.
TOKENIZE_CALLS = 2
#: Documents of a batch that `score` hands to the stream.
SCORE_TEXTS = 1_024
#: Forward passes that may be under way on an accelerator.
IN_FLIGHT = 2


@dataclass(slots=True)
class _Slice:
    """New texts with their tokens, but for those that have none; `batch` lists a batch that ends with this slice."""

    texts: list[Text]
    tokens: Tokens
    batch: list[Text] | None


@dataclass(slots=True)
class _Pool:
    """Texts that are packed together, and what has come back of them."""

    texts: list[Text]
    batches: list[list[Text]]
    offsets_D: npt.NDArray[np.int64]
    rows_SL: Rows
    failed: dict[int, Skipped] = field(default_factory=dict)


@dataclass(slots=True)
class _Pack:
    """One forward pass; `last` closes its pool. A pool of nothing but known texts has one empty pack."""

    pool: _Pool
    sequences: npt.NDArray[np.int64]
    tokens: Tokens
    last: bool


class Engine:
    """A Scorer around a Backend.

    Args:
        backend: The loaded model.
        max_tokens: Window of the model in tokens, special tokens included.
        long_documents: What becomes of longer ones.
        token_budget: Tokens of one forward pass; None: what suits the backend.

    Raises:
        JobError: max_tokens leaves no room for text.
    """

    def __init__(
        self, backend: Backend, *, max_tokens: int, long_documents: LongDocuments, token_budget: int | None = None
    ) -> None:
        self._backend = backend
        #: The steps by themselves, for whoever lets others share a pass.
        self.passes = Passes(backend, max_tokens=max_tokens, long_documents=long_documents, token_budget=token_budget)

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._backend.info

    def score(self, texts: Sequence[str]) -> Rows:
        """Probabilities float32 [D, L] in input order; a row of NaN where a text cannot be scored even alone.

        Raises:
            ModelError: No text can be scored.
        """
        batches = (texts[start : start + SCORE_TEXTS] for start in range(0, len(texts), SCORE_TEXTS))
        rows = [scores.probabilities_DL for scores in self.stream(batches)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.info.labels)), np.float32)

    def stream(self, batches: Iterable[Sequence[str]], meter: Meter | None = None) -> Iterator[Scores]:
        """One Scores for each batch, in order; see the picture above. Closing it early ends all threads.

        Raises:
            ModelError: No text can be scored.
        """
        meter = meter if meter is not None else Meter()
        with ExitStack() as threads:  # closed from the last step to the first, however the stream ends
            read = threads.enter_context(closing(ahead(timed(batches, meter.busy, "read"), "read")))
            tokenized = threads.enter_context(closing(ahead(self._tokenize(read, meter), "tokenize")))
            packed = threads.enter_context(closing(ahead(self._pack(tokenized, meter), "pack")))
            scored = threads.enter_context(closing(ahead(self._forward(packed, meter), "forward")))
            for pack in scored:
                if pack.last:
                    self._settle(pack.pool)
                    yield from (scores_of(batch, len(self.info.labels)) for batch in pack.pool.batches)

    def _tokenize(self, batches: Iterable[Sequence[str]], meter: Meter) -> Iterator[_Slice]:
        """Tokenize the texts that are new, in slices, the next one begun before the last one has ended."""
        under_way: deque[tuple[list[Text], Future[Found], list[Text] | None]] = deque()
        with ThreadPoolExecutor(TOKENIZE_CALLS, "corpuscore-tokenizer") as pool:
            for texts, fresh, batch in slices(batches):
                under_way.append((texts, pool.submit(self.passes.tokens_of, fresh), batch))
                if len(under_way) == TOKENIZE_CALLS:
                    yield _tokenized(*under_way.popleft(), meter)
            while under_way:
                yield _tokenized(*under_way.popleft(), meter)

    def _pack(self, slices: Iterable[_Slice], meter: Meter) -> Iterator[_Pack]:
        waiting: list[_Slice] = []
        tokens = members = 0
        for piece in slices:
            waiting.append(piece)
            tokens += len(piece.tokens.ids)
            members += len(piece.batch or piece.texts)
            if tokens >= POOL_PACKS * self.passes.token_budget or members >= POOL_TEXTS:
                yield from self._close_pool(waiting, meter)
                waiting, tokens, members = [], 0, 0
        if waiting:
            yield from self._close_pool(waiting, meter)

    def _close_pool(self, slices: list[_Slice], meter: Meter) -> Iterator[_Pack]:
        with Stopwatch(meter.busy, "pack"):
            tokens = packing.concatenate([piece.tokens for piece in slices])
            pieces, offsets_D = self.passes.windows(tokens)
            rows_SL = np.full((len(pieces.lengths), len(self.info.labels)), np.nan, np.float32)
            texts = [text for piece in slices for text in piece.texts]
            batches = [piece.batch for piece in slices if piece.batch is not None]
            pool = _Pool(texts, batches, offsets_D, rows_SL)
            groups = packing.pack(pieces.lengths, self.passes.token_budget) or [np.empty(0, np.int64)]
        for place, sequences in enumerate(groups):
            with Stopwatch(meter.busy, "pack"):
                pack = _Pack(pool, sequences, packing.take(pieces, sequences), place == len(groups) - 1)
            yield pack

    def _forward(self, packs: Iterable[_Pack], meter: Meter) -> Iterator[_Pack]:
        """Run the packs in order, with the next one started before the last one is waited for where that helps."""
        running: deque[tuple[_Pack, Callable[[], Rows]]] = deque()
        for pack in packs:
            with Stopwatch(meter.busy, "forward"):
                running.append((pack, self.passes.start(pack.tokens)))
            while len(running) >= IN_FLIGHT:
                yield self._finish(*running.popleft(), meter)
        while running:
            yield self._finish(*running.popleft(), meter)

    def _finish(self, pack: _Pack, result: Callable[[], Rows], meter: Meter) -> _Pack:
        rows_SL, failed = self.passes.finish(pack.tokens, result, Stopwatch(meter.busy, "forward"))
        pack.pool.rows_SL[pack.sequences] = rows_SL
        pack.pool.failed |= {int(pack.sequences[index]): why for index, why in failed.items()}
        meter.tokens += len(pack.tokens.ids)
        meter.unique_texts += int(np.isin(pack.sequences, pack.pool.offsets_D[:-1]).sum())  # first windows
        return pack

    def _settle(self, pool: _Pool) -> None:
        """Give each text its row, pooled over its windows."""
        rows_DL, failed = self.passes.settled(pool.rows_SL, pool.offsets_D, pool.failed)
        for record, row_L in zip(pool.texts, rows_DL, strict=True):
            record.row_L = row_L
        for index, why in failed.items():
            pool.texts[index].failed, pool.texts[index].row_L = why, None


def _tokenized(texts: list[Text], found: Future[Found], batch: list[Text] | None, meter: Meter) -> _Slice:
    """Wait for a slice's tokens; the time of waiting is what tokenizing costs beyond what ran ahead."""
    with Stopwatch(meter.busy, "tokenize"):
        tokens, failed = found.result()
        for index, why in failed.items():
            texts[index].failed = why
        kept = [record for index, record in enumerate(texts) if index not in failed]
        note(kept, tokens)
    return _Slice(kept, tokens, batch)
