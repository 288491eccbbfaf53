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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.corpus import DocumentReader, ReadCounts
from corpuscore.errors import CorpuscoreError, ModelError, unforeseen
from corpuscore.files import scratch_folder
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.receipts import read_receipt, sealed_receipt
from corpuscore.records import (
    TELLING_TEXTS,
    Partition,
    Receipt,
    ScorerInfo,
    Skipped,
    Status,
    part_key,
    part_schema,
    receipt_key,
)
from corpuscore.scoring import load_scorer
from corpuscore.scoring.remote.address import is_service
from corpuscore.scoring.rows import part_rows, without
from corpuscore.scoring.scorer import Meter, Scorer
from corpuscore.storage import Store, translated


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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**asdict(self), "scorer": self.scorer.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of to_json."""
        reading, scoring = ReadOptions.from_json(value["reading"]), ScoreOptions(**value["scoring"])
        return cls(value["store"], reading, scoring, ScorerInfo.from_json(value["scorer"]))


def score_partition(
    partition: Partition,
    work_id: str,
    context: ScoringContext,
    worker: str,
    *,
    skip: Mapping[int, Skipped] = MappingProxyType({}),
    meter: Meter | None = None,
) -> Receipt:
    """Score one partition, unless that is done already.

    Args:
        partition: The slice to read.
        work_id: Its name under this model and these options.
        context: What the run's partitions share.
        worker: Who does it, for the receipt.
        skip: Documents, by position, that are not scored but become rejects.
        meter: Filled while it runs, for who wants to watch: its numbers move with each step and each forward pass.

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
    scorer = planned_scorer(context)
    attempt = uuid.uuid4().hex[:12]
    with scratch_folder() as folder:
        path = folder / "part.parquet"
        draft = _write_part(path, partition, scorer, context.reading, skip, meter or Meter())
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


def planned_scorer(context: ScoringContext) -> Scorer:
    """The run's scorer, loaded once a process.

    Raises:
        ModelError: What lies at the model's path is not the one that was planned.
    """
    with _loading:  # threads of one worker share one model
        return _loaded(context.scoring, context.scorer)


def _computed(info: ScorerInfo) -> str:
    return " ".join(filter(None, [info.precision, info.arithmetic]))


@functools.lru_cache(maxsize=2)
def _loaded(options: ScoreOptions, planned: ScorerInfo) -> Scorer:
    """The scorer that was planned; another one is an error, and not kept: what lies at a path may be replaced."""
    try:
        scorer = load_scorer(**asdict(options))
    except CorpuscoreError:
        raise
    except Exception as error:
        raise unforeseen(ModelError, f"Loading the model {options.model!r}", error) from error
    if scorer.info.fingerprint != planned.fingerprint and is_service(options.model):
        raise ModelError(
            f"The service at {options.model} has the model {scorer.info.fingerprint}, "
            f"planned was {planned.fingerprint}",
            rule="All scores of a run are of one model",
            next_step="put the planned model back and run this again, or plan again for the other one",
        )
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
    meter: Meter = field(default_factory=Meter)
    seconds: float = 0.0
    kept: dict[str, str] = field(default_factory=dict)
    text_hashes: set[str] = field(default_factory=set)
    read: ReadCounts = field(default_factory=ReadCounts)

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
            oddities=self.read.oddities.found,
            lines=self.read.lines,
            other_lines=self.read.other_lines,
            ended=round(time.time(), 3),
        )


def _write_part(
    path: Path,
    partition: Partition,
    scorer: Scorer,
    reading: ReadOptions,
    skip: Mapping[int, Skipped],
    meter: Meter,
) -> _Draft:
    started = time.perf_counter()
    meter.busy["write"] = 0.0
    draft = _Draft(meter=meter)
    labels = scorer.info.labels
    with DocumentReader(partition, reading) as reader, translated(str(path)):
        schema = part_schema(reader.kept_schema, labels)
        draft.kept = {name: str(reader.kept_schema.field(name).type) for name in reader.kept_schema.names}
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["status", "reason"]) as writer:
            for rows in _scored_rows(reader, scorer, schema, draft, skip):
                writer.write_batch(rows)
        draft.read = reader.counts
    with path.open("rb") as file:
        draft.digest = hashlib.file_digest(file, "sha256").hexdigest()
    draft.size_bytes = path.stat().st_size
    draft.seconds = time.perf_counter() - started
    return draft


def _scored_rows(
    reader: DocumentReader, scorer: Scorer, schema: pa.Schema, draft: _Draft, skip: Mapping[int, Skipped]
) -> Iterator[pa.RecordBatch]:
    """Run the reader's batches through the scorer; documents wait in `read` while their texts are on the way."""
    read: deque[pa.RecordBatch] = deque()

    def texts() -> Iterator[list[str]]:
        for documents in (without(batch, skip) for batch in reader):
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
    draft.meter.rows = draft.rows
    draft.truncated += statuses.get(Status.TRUNCATED.value, 0)
    draft.scored += statuses.get(Status.OK.value, 0) + statuses.get(Status.TRUNCATED.value, 0)
    for item in pc.value_counts(rows.column("reason").drop_null()).to_pylist():
        draft.reasons[item["values"]] = draft.reasons.get(item["values"], 0) + item["counts"]
