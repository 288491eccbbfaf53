"""Score: send what is pending of a run to a cluster, and wait for the receipts."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from distributed import Client

from corpuscore.cluster import cluster_at, connected
from corpuscore.dispatch import Dispatch
from corpuscore.errors import SchedulerLost
from corpuscore.patience import SCHEDULER, Wait
from corpuscore.receipts import read_receipts
from corpuscore.records import Receipt
from corpuscore.runs import Chunk, Run
from corpuscore.scoring.partition import ScoringContext
from corpuscore.summaries import ScoreSummary
from corpuscore.tally import ProgressCallback, Tally, starting
from corpuscore.tasks import Work

log = logging.getLogger(__name__)

#: Between two looks whether a scheduler is back.
_AGAIN_SECONDS = 2.0

Clients = Callable[[], AbstractAsyncContextManager[Client]]


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
        progress: See Tally; called on the calling thread.

    Raises:
        PermanentError, TransientError: Those of scoring.partition and dispatch.
    """
    opened = Run.open(run)
    todo = opened.pending(chunk)
    if not todo:
        return _summary([], 0.0)
    job = opened.job
    where = cluster or job.cluster
    if progress and where == "local":
        progress(starting(len(todo)))
    with cluster_at(where, job.workers, job.device) as address:
        patience = SchedulerPatience(seconds=0.0 if where == "local" else SCHEDULER.seconds())
        clients, attempt = partial(connected, address), uuid.uuid4().hex[:8]
        return asyncio.run(score_async(run, chunk, clients, attempt=attempt, patience=patience, progress=progress))


async def score_async(
    run: str,
    chunk: Chunk | None,
    clients: Clients,
    *,
    attempt: str,
    patience: SchedulerPatience,
    progress: ProgressCallback | None = None,
    say: Callable[[str], None] = log.warning,
) -> ScoreSummary:
    """The same on an event loop, with clients of one's own; cancelling it cancels only this attempt's own keys.

    Args:
        run, chunk, progress: See score.
        clients: Opens a client of the cluster for the time of a block; asked again when the scheduler went away.
        attempt: Makes the keys of the tasks this call's own.
        patience: With a scheduler that went away.
        say: Takes a line about what is waited for, or went wrong and is mended.

    Raises:
        PermanentError, TransientError: Those of score.
    """
    began = time.time()
    opened, todo = await asyncio.to_thread(_open_pending, run, chunk)
    if not todo:
        return _summary([], 0.0)
    tally = Tally(len(todo), progress, _rows_of(opened, todo))
    passes = _Passes(opened, chunk, todo, tally, attempt, say)
    await passes.run(clients, patience)
    summary = _summary(passes.tally.receipts, time.time() - began)
    await asyncio.to_thread(opened.write_score, attempt, {**summary.to_json(), "began": began, "ended": time.time()})
    return summary


@dataclass(frozen=True, slots=True)
class SchedulerPatience:
    """With a scheduler that is away.

    Attributes:
        seconds: That it may be away without a partition's end between; 0 for one that cannot come back.
        at_first: Also before it was ever reached.
    """

    seconds: float
    at_first: bool = False


class _Passes:
    """One pass over what is pending, and another one each time that the scheduler is back."""

    def __init__(
        self,
        run: Run,
        chunk: Chunk | None,
        todo: Sequence[int],
        tally: Tally,
        attempt: str,
        say: Callable[[str], None],
    ) -> None:
        self.tally = tally
        self._run = run
        self._chunk = chunk
        self._todo = set(todo)
        self._attempt = attempt
        self._say = say
        self._reached = False

    async def run(self, clients: Clients, patience: SchedulerPatience) -> None:
        """Score all; SchedulerLost comes only when patience has ended."""
        wait, done = None, -1
        while True:
            there = None
            try:
                async with clients() as client:
                    there = time.monotonic()
                    if self._reached:
                        await asyncio.to_thread(self._catch_up)
                    self._reached = True
                    await self._pass(client)
                return
            except SchedulerLost as error:
                if not patience.seconds or not (self._reached or patience.at_first):
                    raise
                if wait is None or len(self.tally.receipts) > done:
                    wait, done = Wait(error.value, patience.seconds, self._say), len(self.tally.receipts)
                elif there:
                    wait.began += time.monotonic() - there  # it was not away for that time
                if wait.over():
                    raise _given_up(error, wait) from error
            self.tally.report(wait.waited, "no scheduler")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _pass(self, client: Client) -> None:
        manifest, job = self._run.manifest, self._run.job
        context = ScoringContext(self._run.store.uri, job.reading, job.scoring, manifest.scorer)
        works = [Work(manifest.partition(at), manifest.work_ids[at]) for at in sorted(self._todo)]
        group = score_group(self._run.id, job.table)
        dispatch = Dispatch(client, context, group=group, attempt=self._attempt, tally=self.tally, say=self._say)
        await dispatch.run(works)

    def _catch_up(self) -> None:
        """Leave out what has its receipt by now, and count it: some of it ended while the scheduler was away."""
        pending = set(self._run.pending(self._chunk))
        ended = [self._run.manifest.work_ids[at] for at in sorted(self._todo - pending)]
        counted = {receipt.work_id for receipt in self.tally.receipts}
        found = read_receipts(self._run.store, [work_id for work_id in ended if work_id not in counted]).found
        for receipt in found.values():
            self.tally.add(receipt)
        known = counted | set(found)
        self._todo = {at for at in self._todo if self._run.manifest.work_ids[at] not in known}


def _given_up(error: SchedulerLost, wait: Wait) -> SchedulerLost:
    return SchedulerLost(
        f"{error.value.rstrip('.')}, and was not back after {wait.limit:,.0f} s",
        next_step=f"start it again, then run this again, which does only what is left; {SCHEDULER.variable}=30m "
        "waits longer",
    )


def score_group(run_id: str, table: str) -> str:
    """Name of a run's task group on the cluster.

    Dask takes a prefix of it, up to the first dash and the words of letters that follow; what is known of a task's
    duration goes by that prefix. The blank keeps an id of letters from being such a word: it is `score` for all runs.
    """
    return f"score-{run_id[:6]} {table}"


def _rows_of(opened: Run, partitions: Sequence[int]) -> int | None:
    """Documents of some partitions; None where that is known only when they were read."""
    rows = [opened.manifest.partition(at).rows for at in partitions]
    return None if None in rows else sum(filter(None, rows))


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
