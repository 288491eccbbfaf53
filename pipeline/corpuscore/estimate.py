"""The dry run: what a job would take, from a plan and a sample, before anything is spent.

freeze, as plan does -> what has no receipt yet -> a sample of it, scored -> the rest of it, extrapolated
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from corpuscore.cluster import check, cluster_at, connected, run_one, wait_for_workers
from corpuscore.corpus import DocumentReader, check_apart, spread
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.patience import LOADING
from corpuscore.receipts import read_receipts
from corpuscore.records import Partition
from corpuscore.runs import pending_of
from corpuscore.scoring import load_scorer
from corpuscore.scoring.scorer import Meter
from corpuscore.stages.planning import freeze
from corpuscore.storage import Store

_PARTITIONS_SAMPLED = 8
_DOCUMENTS_PER_PARTITION = 128

#: Text shrinks to about a third under gzip and zstd; only used where a compressed object says no more.
_COMPRESSION = 3.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take; all but objects and partitions are estimates from the sample.

    Attributes:
        objects, partitions, size_bytes: Of the corpus.
        documents: Of the corpus.
        documents_exact: Whether formats and receipts say how many; else it is extrapolated from the sample.
        pending: Partitions that are not scored yet by this model with these options.
        documents_to_score, tokens: Of these partitions.
        sampled_documents, sampled_rejects: Read for this.
        documents_per_second: Of one worker, on the sample, model already loaded; 0 where nothing is to be scored.
        workers: Of the cluster; 0 where nothing is to be scored, for which no cluster is asked.
        seconds: Of wall time, expected.
        worker_hours, cost: Of all workers together; the cost where a price was given.
    """

    objects: int
    partitions: int
    size_bytes: int
    documents: int
    documents_exact: bool
    pending: int
    documents_to_score: int
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
    check_apart(job.corpus, job.work)
    store = Store(job.work)
    frozen = freeze(job, store)
    manifest = frozen.manifest
    pending = pending_of(store, manifest.work_ids)
    sampled = spread(pending or range(len(manifest)), _PARTITIONS_SAMPLED)
    slices = [_look_into(manifest.partition(at), job.reading) for at in sampled]
    texts = [text for piece in slices for text in piece.texts]
    workers, tokens, seconds = _measure(job, texts) if pending else (0, 0, 0.0)

    known = _known_rows(store, manifest, pending)
    mean_rows = sum(piece.rows for piece in slices) / max(len(slices), 1)
    to_score = round(sum(mean_rows if (rows := known[at]) is None else rows for at in pending))
    per_second = len(texts) / seconds if texts and seconds else 0.0
    expected = to_score / (per_second * workers) if per_second else 0.0
    hours = expected * workers / 3600
    return Estimate(
        objects=frozen.objects,
        partitions=len(manifest),
        size_bytes=frozen.size_bytes,
        documents=round(sum(mean_rows if rows is None else rows for rows in known)),
        documents_exact=None not in known,
        pending=len(pending),
        documents_to_score=to_score,
        tokens=round(to_score * tokens / max(len(texts), 1)),
        sampled_documents=len(texts) + sum(piece.rejects for piece in slices),
        sampled_rejects=sum(piece.rejects for piece in slices),
        documents_per_second=per_second,
        workers=workers,
        seconds=expected,
        worker_hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
    )


def _known_rows(store: Store, manifest: Manifest, pending: Sequence[int]) -> list[int | None]:
    """Documents of each partition, where its format or its receipt says how many."""
    rows = [partition.rows for partition in manifest]
    unknown = [at for at in sorted(set(range(len(rows))) - set(pending)) if rows[at] is None]
    found = read_receipts(store, [manifest.work_ids[at] for at in unknown]).found
    for at in unknown:
        if receipt := found.get(manifest.work_ids[at]):
            rows[at] = receipt.rows
    return rows


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
