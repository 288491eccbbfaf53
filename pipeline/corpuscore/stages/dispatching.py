"""Score: send what is pending of a run to a cluster, and wait for the receipts."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

from distributed import Client

from corpuscore.cluster import connect
from corpuscore.dispatch import Dispatch, ProgressCallback, Work
from corpuscore.records import Receipt
from corpuscore.runs import Chunk, Run
from corpuscore.scoring.partition import ScoringContext
from corpuscore.summaries import ScoreSummary


def pending(run: str, chunk: Chunk | None = None) -> int:
    """How many partitions (of a chunk) have no receipt yet."""
    return len(Run.open(run).pending(chunk))


def score(
    run: str,
    chunk: Chunk | None = None,
    *,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> ScoreSummary:
    """Score what is pending (of a chunk) and wait for it; no cluster is touched when nothing is.

    Args:
        run: URI of the run's folder.
        chunk: Range of partition indexes; None takes all.
        cluster: `local` or an address; None takes the job's.
        progress: See Dispatch; called from the client's thread.

    Raises:
        PermanentError, TransientError: Those of scoring.partition and dispatch.
    """
    opened = Run.open(run)
    if not opened.pending(chunk):
        return _summary([], 0.0)
    job = opened.job
    with connect(cluster or job.cluster, job.workers, job.device, wait=False) as client:
        summary: ScoreSummary = client.sync(
            score_async, run, chunk, client, attempt=uuid.uuid4().hex[:8], progress=progress
        )
        return summary


async def score_async(
    run: str,
    chunk: Chunk | None,
    client: Client,
    *,
    attempt: str,
    progress: ProgressCallback | None = None,
) -> ScoreSummary:
    """The same on a client's event loop; cancelling the coroutine cancels only this attempt's own keys."""
    began = time.time()
    opened, todo = await asyncio.to_thread(_open_pending, run, chunk)
    manifest, job = opened.manifest, opened.job
    context = ScoringContext(opened.store.uri, job.reading, job.scoring, manifest.scorer)
    works = [Work(manifest.partition(at), manifest.work_ids[at]) for at in todo]
    dispatch = Dispatch(client, context, group=score_group(opened.id, job.table), attempt=attempt, progress=progress)
    receipts = await dispatch.run(works) if works else []
    summary = _summary(receipts, time.time() - began)
    if works:
        await asyncio.to_thread(
            opened.write_score, attempt, {**summary.to_json(), "began": began, "ended": time.time()}
        )
    return summary


def score_group(run_id: str, table: str) -> str:
    """Name of a run's task group on the cluster.

    Dask takes a prefix of it, up to the first dash and the words of letters that follow; what is known of a task's
    duration goes by that prefix. The blank keeps an id of letters from being such a word: it is `score` for all runs.
    """
    return f"score-{run_id[:6]} {table}"


def _open_pending(run: str, chunk: Chunk | None) -> tuple[Run, list[int]]:
    opened = Run.open(run)
    return opened, opened.pending(chunk)


def _summary(receipts: Sequence[Receipt], seconds: float) -> ScoreSummary:
    busy: dict[str, float] = {}
    for receipt in receipts:
        for step, spent in receipt.busy.items():
            busy[step] = busy.get(step, 0.0) + spent
    return ScoreSummary(
        partitions=len(receipts),
        rows=sum(receipt.rows for receipt in receipts),
        scored=sum(receipt.scored for receipt in receipts),
        rejected=sum(receipt.rejected for receipt in receipts),
        tokens=sum(receipt.tokens for receipt in receipts),
        unique_texts=sum(receipt.unique_texts for receipt in receipts),
        seconds=seconds,
        busy=busy,
    )
