"""The engine: texts in, scores out in the same order, every step in a thread of its own.

    read -> tokenize (each distinct text once) -> pack -> forward -> Scores
         |                                    |         |
         bounded queues between them: memory depends on the token budget, not on the corpus

Texts gather in pools of many packs, so that a pack holds texts of like length. A pool is settled when its last pack
is; batches come out when the pool with their last text is settled, which is in order because pools are.

Shape suffixes: D documents, L labels, S sequences (windows of documents), T tokens.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from corpuscore.errors import JobError
from corpuscore.records import LongDocuments, ScorerInfo
from corpuscore.scoring import packing
from corpuscore.scoring.scorer import Backend, Meter, Pipelined, Scores, Tokens
from corpuscore.scoring.threads import Stopwatch, ahead, timed

Rows = npt.NDArray[np.float32]

#: Distinct texts whose scores are remembered within a stream; older ones would be scored again, with the same result.
REMEMBERED_TEXTS = 65_536
#: A pool is closed at so many packs' worth of tokens, or so many texts.
POOL_PACKS = 16
POOL_TEXTS = 8_192
#: Texts that are tokenized in one call, and calls under way at once: while the tokenizer's own threads are at work for
#: one, the ids of the other are gathered in Python.
TOKENIZE_TEXTS = 1_024
TOKENIZE_CALLS = 2
#: Documents of a batch that `score` hands to the stream.
SCORE_TEXTS = 1_024
#: Forward passes that may be under way on an accelerator.
IN_FLIGHT = 2


class _Text:
    """One distinct text of the stream, shared by all documents that have it."""

    __slots__ = ("failed", "row_L", "tokens", "truncated")

    def __init__(self) -> None:
        self.row_L: Rows | None = None
        self.tokens = 0
        self.truncated = False
        self.failed = ""


@dataclass(slots=True)
class _Slice:
    """New texts with their tokens; `batch` lists all texts of a batch that ends with this slice."""

    texts: list[_Text]
    tokens: Tokens
    batch: list[_Text] | None


@dataclass(slots=True)
class _Pool:
    """Texts that are packed together, and what has come back of them."""

    texts: list[_Text]
    batches: list[list[_Text]]
    offsets_D: npt.NDArray[np.int64]
    rows_SL: Rows
    failed: dict[int, str] = field(default_factory=dict)


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
        _check_window(backend, max_tokens)
        self._backend = backend
        self._max_tokens = max_tokens
        self._long_documents = long_documents
        self._token_budget = max(token_budget or backend.token_budget, max_tokens)
        # Streams of one engine share the cores pass by pass: while one is in the model, the others read and tokenize.
        self._pass: AbstractContextManager[object] = (
            nullcontext() if isinstance(backend, Pipelined) else threading.Lock()
        )

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._backend.info

    def score(self, texts: Sequence[str]) -> Rows:
        """Probabilities float32 [D, L] in input order; a row of NaN where a text cannot be scored even alone."""
        batches = (texts[start : start + SCORE_TEXTS] for start in range(0, len(texts), SCORE_TEXTS))
        rows = [scores.probabilities_DL for scores in self.stream(batches)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.info.labels)), np.float32)

    def stream(self, batches: Iterable[Sequence[str]], meter: Meter | None = None) -> Iterator[Scores]:
        """One Scores for each batch, in order; see the picture above. Closing it early ends all threads."""
        meter = meter if meter is not None else Meter()
        with ExitStack() as threads:  # closed from the last step to the first, however the stream ends
            read = threads.enter_context(closing(ahead(timed(batches, meter.busy, "read"), "read")))
            tokenized = threads.enter_context(closing(ahead(self._tokenize(read, meter), "tokenize")))
            packed = threads.enter_context(closing(ahead(self._pack(tokenized, meter), "pack")))
            scored = threads.enter_context(closing(ahead(self._forward(packed, meter), "forward")))
            for pack in scored:
                if pack.last:
                    _settle(pack.pool, self._long_documents)
                    yield from (_scores(batch, len(self.info.labels)) for batch in pack.pool.batches)

    def _tokenize(self, batches: Iterable[Sequence[str]], meter: Meter) -> Iterator[_Slice]:
        """Tokenize the texts that are new, in slices, the next one begun before the last one has ended."""
        limit = self._max_tokens if self._long_documents == "truncate" else None
        under_way: deque[tuple[list[_Text], Future[Tokens], list[_Text] | None]] = deque()
        with ThreadPoolExecutor(TOKENIZE_CALLS, "corpuscore-tokenizer") as pool:
            for texts, fresh, batch in _slices(batches):
                under_way.append((texts, pool.submit(self._backend.tokenize, fresh, limit), batch))
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
            if tokens >= POOL_PACKS * self._token_budget or members >= POOL_TEXTS:
                yield from self._close_pool(waiting, meter)
                waiting, tokens, members = [], 0, 0
        if waiting:
            yield from self._close_pool(waiting, meter)

    def _close_pool(self, slices: list[_Slice], meter: Meter) -> Iterator[_Pack]:
        with Stopwatch(meter.busy, "pack"):
            tokens = packing.concatenate([piece.tokens for piece in slices])
            special = self._backend.special_tokens
            pieces, offsets_D = packing.windows(tokens, self._max_tokens, special)
            rows_SL = np.full((len(pieces.lengths), len(self.info.labels)), np.nan, np.float32)
            texts = [text for piece in slices for text in piece.texts]
            batches = [piece.batch for piece in slices if piece.batch is not None]
            pool = _Pool(texts, batches, offsets_D, rows_SL)
            groups = packing.pack(pieces.lengths, self._token_budget) or [np.empty(0, np.int64)]
        for place, sequences in enumerate(groups):
            with Stopwatch(meter.busy, "pack"):
                pack = _Pack(pool, sequences, packing.take(pieces, sequences), place == len(groups) - 1)
            yield pack

    def _forward(self, packs: Iterable[_Pack], meter: Meter) -> Iterator[_Pack]:
        """Run the packs in order, with the next one started before the last one is waited for where that helps."""
        running: deque[tuple[_Pack, Callable[[], Rows]]] = deque()
        for pack in packs:
            with Stopwatch(meter.busy, "forward"):
                running.append((pack, self._start(pack.tokens)))
            while len(running) >= IN_FLIGHT:
                yield self._finish(*running.popleft(), meter)
        while running:
            yield self._finish(*running.popleft(), meter)

    def _start(self, tokens: Tokens) -> Callable[[], Rows]:
        if not len(tokens.lengths):
            return lambda: np.empty((0, len(self.info.labels)), np.float32)
        if isinstance(self._backend, Pipelined):
            with suppress(MemoryError):  # then `_finish` meets it again, and halves
                return self._backend.submit(tokens)
        return lambda: self._backend.forward(tokens)

    def _finish(self, pack: _Pack, result: Callable[[], Rows], meter: Meter) -> _Pack:
        with self._pass, Stopwatch(meter.busy, "forward"):
            rows_SL = _if_it_fits(result)
            if rows_SL is not None:
                pack.pool.rows_SL[pack.sequences] = rows_SL
            else:
                self._halve(pack)
        meter.tokens += len(pack.tokens.ids)
        meter.unique_texts += len(pack.pool.texts) if pack.last else 0
        return pack

    def _halve(self, pack: _Pack) -> None:
        """Out of memory: run the pack in halves, and theirs if need be; a sequence that fails alone is marked."""
        halves = deque([np.arange(len(pack.sequences))])
        while halves:
            members = halves.popleft()
            tokens = packing.take(pack.tokens, members)
            rows_SL = _if_it_fits(partial(self._backend.forward, tokens))
            if rows_SL is not None:
                pack.pool.rows_SL[pack.sequences[members]] = rows_SL
            elif len(members) == 1:
                reason = f"out of memory at {len(tokens.ids)} tokens"
                pack.pool.failed[int(pack.sequences[members[0]])] = reason
            else:
                middle = len(members) // 2
                halves.extend((members[:middle], members[middle:]))


def _if_it_fits(run: Callable[[], Rows]) -> Rows | None:
    """What a pass gives, or None where memory ended: then the error is gone, and what it held of the pass with it."""
    try:
        return run()
    except MemoryError:
        return None


def _check_window(backend: Backend, max_tokens: int) -> None:
    if max_tokens <= sum(backend.special_tokens):
        raise JobError(
            f"max_tokens={max_tokens}",
            rule=f"{sum(backend.special_tokens)} of them are special tokens, and at least one must be left for text",
        )


def _slices(batches: Iterable[Sequence[str]]) -> Iterator[tuple[list[_Text], list[str], list[_Text] | None]]:
    """Records and texts that are new, slice by slice; with a batch's last slice, the records of all its texts."""
    known: dict[bytes, _Text] = {}
    for batch in batches:
        members: list[_Text] = []
        for start in range(0, max(1, len(batch)), TOKENIZE_TEXTS):
            texts, fresh = _distinct(batch[start : start + TOKENIZE_TEXTS], known, members)
            yield texts, fresh, members if start + TOKENIZE_TEXTS >= len(batch) else None


def _tokenized(texts: list[_Text], tokens: Future[Tokens], batch: list[_Text] | None, meter: Meter) -> _Slice:
    """Wait for a slice's tokens; the time of waiting is what tokenizing costs beyond what ran ahead."""
    with Stopwatch(meter.busy, "tokenize"):
        found = tokens.result()
        _note(texts, found)
    return _Slice(texts, found, batch)


def _distinct(batch: Sequence[str], known: dict[bytes, _Text], members: list[_Text]) -> tuple[list[_Text], list[str]]:
    """Append every text's record to members; return the records and texts that were not known.

    Texts are known by a hash of 128 bits, so that long ones need not be kept.
    """
    texts: list[_Text] = []
    fresh: list[str] = []
    for text in batch:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        record = known.get(key)
        if record is None:
            record = known[key] = _Text()
            texts.append(record)
            fresh.append(text)
            if len(known) > REMEMBERED_TEXTS:
                del known[next(iter(known))]
        members.append(record)
    return texts, fresh


def _note(texts: list[_Text], tokens: Tokens) -> None:
    """Write down what was used of each text."""
    lengths = tokens.lengths.tolist()
    cut = tokens.truncated.tolist() if tokens.truncated is not None else [False] * len(lengths)
    for record, length, truncated in zip(texts, lengths, cut, strict=True):
        record.tokens = length
        record.truncated = truncated


def _settle(pool: _Pool, how: LongDocuments) -> None:
    """Give each text its row, pooled over its windows."""
    rows_DL = packing.pool(pool.rows_SL, pool.offsets_D, how)
    for record, row_L in zip(pool.texts, rows_DL, strict=True):
        record.row_L = row_L
    for window, reason in pool.failed.items():
        document = int(np.searchsorted(pool.offsets_D, window, side="right")) - 1
        pool.texts[document].failed = reason
        pool.texts[document].row_L = np.full(rows_DL.shape[1], np.nan, np.float32)


def _scores(batch: list[_Text], labels: int) -> Scores:
    rows_DL = np.full((len(batch), labels), np.nan, np.float32)
    for index, text in enumerate(batch):
        rows_DL[index] = text.row_L
    return Scores(
        probabilities_DL=rows_DL,
        tokens_D=np.fromiter((text.tokens for text in batch), np.int32, len(batch)),
        truncated_D=np.fromiter((text.truncated for text in batch), np.bool_, len(batch)),
        failed={index: text.failed for index, text in enumerate(batch) if text.failed},
    )
