"""Score one partition: part first, receipt last.

    receipt there? -> read -> score -> part (attempt-unique key) -> receipt (one atomic write)

Whoever runs this, however often and at the same time, the receipt decides which part counts.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.corpus import DocumentReader
from corpuscore.errors import ModelError
from corpuscore.files import scratch_folder
from corpuscore.job import ReadOptions, ScoreOptions
from corpuscore.receipts import read_receipt, sealed_receipt
from corpuscore.records import (
    NOT_FINITE,
    TELLING_TEXTS,
    Partition,
    Receipt,
    ScorerInfo,
    Status,
    part_key,
    part_schema,
    receipt_key,
)
from corpuscore.scoring import load_scorer
from corpuscore.scoring.scorer import Meter, Scorer, Scores
from corpuscore.storage import Store, translated

_EMPTY_REASONS = ("null", "empty", "whitespace")


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """What all partitions of a run share; small, since it travels with each task.

    Attributes:
        store: URI of the work location.
        reading, scoring: The job's pieces.
        scorer: What was planned; a worker whose model differs from it refuses to score.
    """

    store: str
    reading: ReadOptions
    scoring: ScoreOptions
    scorer: ScorerInfo


def score_partition(partition: Partition, work_id: str, context: ScoringContext, worker: str) -> Receipt:
    """Score one partition, unless that is done already.

    Args:
        partition: The slice to read.
        work_id: Its name under this model and these options.
        context: What the run's partitions share.
        worker: Who does it, for the receipt.

    Returns:
        The receipt that counts: this attempt's, or that of whoever came first.

    Raises:
        CorpusError: The object cannot be read, or is not the one that was planned.
        ModelError: This worker's model is not the one that was planned.
        StorageError, StorageUnavailable: The work location.
    """
    store = Store(context.store)
    if done := read_receipt(store, work_id):
        return done
    scorer = _planned_scorer(context)
    attempt = uuid.uuid4().hex[:12]
    with scratch_folder() as folder:
        path = folder / "part.parquet"
        draft = _write_part(path, partition, scorer, context.reading)
        key = part_key(work_id, attempt)
        store.upload(path, key)
    receipt = draft.receipt(work_id, partition, key, worker)
    return _commit(store, receipt)


def _commit(store: Store, receipt: Receipt) -> Receipt:
    key = receipt_key(receipt.work_id)
    body = sealed_receipt(receipt)
    if store.create(key, body):
        return receipt
    if winner := read_receipt(store, receipt.work_id):
        if winner.part != receipt.part:  # else it is this very receipt, whose first answer was lost
            store.delete([receipt.part])
        return winner
    store.write(key, body)  # the receipt that was there names a part that is gone, or is damaged
    return receipt


_loading = threading.Lock()


def _planned_scorer(context: ScoringContext) -> Scorer:
    with _loading:  # threads of one worker share one model
        return _loaded(context.scoring, context.scorer)


def _computed(info: ScorerInfo) -> str:
    return " ".join(filter(None, [info.precision, info.arithmetic]))


@functools.lru_cache(maxsize=2)
def _loaded(options: ScoreOptions, planned: ScorerInfo) -> Scorer:
    """The scorer that was planned; another one is an error, and not kept: what lies at a path may be replaced."""
    scorer = load_scorer(**asdict(options))
    if scorer.info.fingerprint != planned.fingerprint:
        raise ModelError(
            f"The model {options.model!r} on this worker has the fingerprint {scorer.info.fingerprint} "
            f"({_computed(scorer.info)}), planned was {planned.fingerprint} ({_computed(planned)})",
            rule="All workers of a run score with the same weights, tokenizer, backend, precision and arithmetic",
            next_step="put the same checkpoint on every worker, or plan again; where CPUs differ, give each a C++ "
            "compiler and set CORPUSCORE_CPU on all of them to a level that they have in common",
        )
    return scorer


@dataclass(slots=True)
class _Draft:
    """What is known of a part before it has a name."""

    digest: str = ""
    size_bytes: int = 0
    rows: int = 0
    scored: int = 0
    truncated: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    meter: Meter = field(default_factory=lambda: Meter(busy={"write": 0.0}))
    seconds: float = 0.0
    kept: dict[str, str] = field(default_factory=dict)
    text_hashes: set[str] = field(default_factory=set)

    def note_texts(self, texts: Iterable[str]) -> None:
        """Remember different texts, until there are enough to judge the part by itself."""
        for text in texts:
            if len(self.text_hashes) >= TELLING_TEXTS:
                return
            self.text_hashes.add(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())

    def receipt(self, work_id: str, partition: Partition, part: str, worker: str) -> Receipt:
        return Receipt(
            work_id=work_id,
            uri=partition.uri,
            etag=partition.etag,
            part=part,
            digest=self.digest,
            size_bytes=self.size_bytes,
            rows=self.rows,
            scored=self.scored,
            rejected=self.rows - self.scored,
            truncated=self.truncated,
            reasons=self.reasons,
            tokens=self.meter.tokens,
            unique_texts=self.meter.unique_texts,
            seconds=round(self.seconds, 3),
            busy={step: round(seconds, 3) for step, seconds in self.meter.busy.items()},
            worker=worker,
            kept=self.kept,
            text_hashes=tuple(sorted(self.text_hashes)) if len(self.text_hashes) < TELLING_TEXTS else (),
        )


def _write_part(path: Path, partition: Partition, scorer: Scorer, reading: ReadOptions) -> _Draft:
    started = time.perf_counter()
    draft = _Draft()
    labels = scorer.info.labels
    with DocumentReader(partition, reading) as reader, translated(str(path)):
        schema = part_schema(reader.kept_schema, labels)
        draft.kept = {name: str(reader.kept_schema.field(name).type) for name in reader.kept_schema.names}
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["status", "reason"]) as writer:
            for rows in _scored_rows(reader, scorer, schema, draft):
                writer.write_batch(rows)
    with path.open("rb") as file:
        draft.digest = hashlib.file_digest(file, "sha256").hexdigest()
    draft.size_bytes = path.stat().st_size
    draft.seconds = time.perf_counter() - started
    return draft


def _scored_rows(reader: DocumentReader, scorer: Scorer, schema: pa.Schema, draft: _Draft) -> Iterator[pa.RecordBatch]:
    """Run the reader's batches through the scorer; documents wait in `read` while their texts are on the way."""
    read: deque[pa.RecordBatch] = deque()

    def texts() -> Iterator[list[str]]:
        for documents in reader:
            read.append(documents)
            found = documents.column("text").drop_null().to_pylist()
            draft.note_texts(found)
            yield found

    for scores in scorer.stream(texts(), draft.meter):
        started = time.perf_counter()
        rows = part_rows(read.popleft(), scores, schema)
        _count(rows, draft)
        yield rows
        draft.meter.busy["write"] += time.perf_counter() - started


def _count(rows: pa.RecordBatch, draft: _Draft) -> None:
    statuses = {item["values"]: item["counts"] for item in pc.value_counts(rows.column("status")).to_pylist()}
    draft.rows += rows.num_rows
    draft.truncated += statuses.get(Status.TRUNCATED.value, 0)
    draft.scored += statuses.get(Status.OK.value, 0) + statuses.get(Status.TRUNCATED.value, 0)
    for item in pc.value_counts(rows.column("reason").drop_null()).to_pylist():
        draft.reasons[item["values"]] = draft.reasons.get(item["values"], 0) + item["counts"]


def part_rows(documents: pa.RecordBatch, scores: Scores, schema: pa.Schema) -> pa.RecordBatch:
    """Join documents with the scores of those that have a text.

    Args:
        documents: DOCUMENT_FIELDS and kept columns; `text` is null in the reader's rejects.
        scores: One row for each document with a text, in order.
        schema: part_schema of the run.

    Returns:
        One row a document, in corpus order; label columns are null in rejects, which a document becomes, too, where a
        score of it is NaN or infinite.
    """
    index = np.flatnonzero(documents.column("text").is_valid().to_numpy(zero_copy_only=False))
    reasons_by_index = {**_not_finite(scores), **scores.failed}
    failed = np.array(sorted(reasons_by_index), dtype=np.int64)
    good = np.setdiff1d(np.arange(len(index)), failed)
    unscored = np.ones(documents.num_rows, dtype=bool)
    unscored[index[good]] = False

    reason = documents.column("reason").to_pylist() if unscored.any() else [None] * documents.num_rows
    for at in failed:
        reason[index[at]] = reasons_by_index[int(at)]
    reasons = pa.array(reason, pa.string())
    columns = {
        **{name: documents.column(name) for name in schema.names if name in documents.schema.names},
        "status": _statuses(reasons, index, scores),
        "reason": reasons,
        "token_count": _spread(scores.tokens_D, index, unscored, pa.int32()),
    }
    first_label = len(schema.names) - scores.probabilities_DL.shape[1]
    for column, label in enumerate(schema.names[first_label:]):
        columns[label] = _spread(scores.probabilities_DL[:, column], index, unscored, pa.float32())
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _not_finite(scores: Scores) -> dict[int, str]:
    """A reason for each document that has a score that is no number."""
    finite_D = np.isfinite(scores.probabilities_DL).all(axis=1)
    return dict.fromkeys(np.flatnonzero(~finite_D).tolist(), NOT_FINITE)


def _statuses(reasons: pa.Array, index: np.ndarray, scores: Scores) -> pa.Array:
    truncated = np.zeros(len(reasons), dtype=bool)
    truncated[index] = scores.truncated_D
    scored = pc.if_else(pa.array(truncated), Status.TRUNCATED.value, Status.OK.value)
    rejected = pc.if_else(pc.is_in(reasons, pa.array(_EMPTY_REASONS)), Status.EMPTY.value, Status.REJECTED.value)
    return pc.if_else(reasons.is_null(), scored, rejected)


def _spread(values: np.ndarray, index: np.ndarray, unscored: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values of the scored documents at their places among all documents; null elsewhere."""
    spread = np.zeros(len(unscored), dtype=values.dtype)
    spread[index] = values
    return pa.array(spread, kind, mask=unscored)
