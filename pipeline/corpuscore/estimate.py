"""The dry run: what a job would take, from a plan and a sample, before anything is spent."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from corpuscore.cluster import check, cluster_at, connected, run_one, wait_for_workers
from corpuscore.corpus import DocumentReader, list_objects, split
from corpuscore.job import Job
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.patience import LOADING
from corpuscore.records import Partition
from corpuscore.scoring import load_scorer
from corpuscore.scoring.scorer import Meter

_PARTITIONS_SAMPLED = 8
_DOCUMENTS_PER_PARTITION = 128

#: Text shrinks to about a third under gzip and zstd; only used where a compressed object says no more.
_COMPRESSION = 3.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take; all but objects and partitions are estimates from the sample.

    Attributes:
        objects, partitions, size_bytes: Of the corpus.
        documents, tokens: Expected; documents are exact where the formats say.
        documents_exact: Whether they do.
        sampled_documents, sampled_rejects: Read for this.
        documents_per_second: Of one worker, on the sample, model already loaded.
        workers: Of the cluster.
        seconds: Of wall time, expected.
        worker_hours, cost: Of all workers together; the cost where a price was given.
    """

    objects: int
    partitions: int
    size_bytes: int
    documents: int
    documents_exact: bool
    tokens: int
    sampled_documents: int
    sampled_rejects: int
    documents_per_second: float
    workers: int
    seconds: float
    worker_hours: float
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Slice:
    """What the beginning of one partition shows."""

    texts: list[str]
    rejects: int
    rows: float  # of the whole partition


def estimate(job: Job, price_per_hour: float | None = None) -> Estimate:
    """Plan, score a few hundred documents on one worker, and extrapolate; writes nothing.

    Args:
        job: The job.
        price_per_hour: Of one worker.

    Raises:
        PermanentError, TransientError: Those that the job itself would meet on the way.
    """
    objects = list_objects(job.corpus, job.format, job.selection)
    partitions = list(split(objects, job.partition_rows, job.reading))
    slices = [_look_into(partition, job.reading) for partition in _spread(partitions)]
    texts = [text for piece in slices for text in piece.texts]
    workers, tokens, seconds = _measure(job, texts)

    known = [partition.rows for partition in partitions]
    mean_rows = sum(piece.rows for piece in slices) / max(len(slices), 1)
    documents = round(sum(mean_rows if rows is None else rows for rows in known))
    per_second = len(texts) / seconds if texts else 0.0
    expected = documents / (per_second * workers) if per_second else 0.0
    hours = expected * workers / 3600
    return Estimate(
        objects=len(objects),
        partitions=len(partitions),
        size_bytes=sum(item.size_bytes for item in objects),
        documents=documents,
        documents_exact=None not in known,
        tokens=round(documents * tokens / max(len(texts), 1)),
        sampled_documents=len(texts) + sum(piece.rejects for piece in slices),
        sampled_rejects=sum(piece.rejects for piece in slices),
        documents_per_second=per_second,
        workers=workers,
        seconds=expected,
        worker_hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
    )


def _spread(partitions: Sequence[Partition]) -> Sequence[Partition]:
    """Some partitions, evenly over the corpus."""
    step = max(1, math.ceil(len(partitions) / _PARTITIONS_SAMPLED))
    return partitions[::step]


def _look_into(partition: Partition, reading: ReadOptions) -> _Slice:
    with DocumentReader(partition, reading, batch_rows=_DOCUMENTS_PER_PARTITION) as reader:
        batches = iter(reader)
        first = next(batches, None)
        ended = next(batches, None) is None
    if first is None:
        return _Slice([], 0, 0)
    texts = first.column("text").drop_null().to_pylist()
    rows = first.num_rows if ended else partition.rows or _rows_by_bytes(partition, first)
    return _Slice(texts, first.num_rows - len(texts), rows)


def _rows_by_bytes(partition: Partition, first: pa.RecordBatch) -> float:
    """Rows of a partition, by what its first documents take: from position to position, or as Arrow holds them."""
    size = partition.stop - partition.start if partition.kind == "bytes" else partition.size_bytes
    if partition.uri.endswith((".gz", ".zst")) and partition.format != "warc":  # where positions count stored bytes
        size = round(size * _COMPRESSION)
    positions = first.column("position").to_pylist()
    span = first.nbytes if partition.format in ("parquet", "arrow") else positions[-1] - positions[0]
    return float(max(first.num_rows, size / max(span / max(first.num_rows - 1, 1), 1.0)))


def _measure(job: Job, texts: list[str]) -> tuple[int, int, float]:
    """(workers of the cluster, tokens of the texts, seconds that one worker takes for them)."""
    with cluster_at(job.cluster, job.workers, job.device) as address:
        return asyncio.run(_measured(address, texts, job.scoring))


async def _measured(address: str, texts: list[str], options: ScoreOptions) -> tuple[int, int, float]:
    async with connected(address) as client:
        if not await check(client):
            await wait_for_workers(client)
        workers = await check(client)
        what, limit = f"Measuring a sample with {options.model!r}", LOADING.seconds()
        tokens, seconds = await run_one(client, measure_sample, texts, options, what=what, limit=limit)
    return workers, tokens, seconds


def measure_sample(texts: list[str], options: ScoreOptions) -> tuple[int, float]:
    """(tokens, seconds) of scoring some texts; runs on a worker, where it loads the model first."""
    scorer = load_scorer(**asdict(options))
    scorer.score(texts[:8])  # the first call may compile
    meter = Meter()
    started = time.perf_counter()
    for _ in scorer.stream([texts], meter):
        pass
    return meter.tokens, max(time.perf_counter() - started, 1e-9)
