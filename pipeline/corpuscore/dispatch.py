"""Dask dispatches: one task a partition, a bounded window in flight, a receipt-sized result.

Nothing here is trusted to survive. A lost client, worker or scheduler costs the tasks that were in flight, and the
next dispatch finds the receipts of all that had ended. Cancelling is only a courtesy to the cluster: a running thread
goes on and writes its receipt.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from typing import Any

from distributed import Client, Future, KilledWorker, get_worker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from corpuscore.cluster import RowsScored, address_of, threads_of, unreachable, wait_for_workers
from corpuscore.errors import ClusterUnavailable, CorpuscoreError, CorpusError, TransientError
from corpuscore.records import Partition, Receipt
from corpuscore.scoring.partition import ScoringContext, score_partition

#: Tasks in flight for each thread of the cluster: one running, one waiting at the worker.
_WINDOW = 2

#: How often the number of tasks in flight is fitted to the cluster; a client learns of its size every two seconds.
_FOLLOW_SECONDS = 1.0

#: Progress is told this often at the most, however many partitions end meanwhile.
_REPORT_SECONDS = 0.2

#: A future that the cluster lost (scheduler restarted, key cancelled by someone else) is submitted again this often.
_LOST_LIMIT = 3

#: Partitions that may fail on their own account before the dispatch stops and says so.
_FAILURE_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Work:
    """One partition to score, and its name."""

    partition: Partition
    work_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a dispatch is.

    Attributes:
        done, total: Partitions.
        rows, rejected: Documents, of which rejects.
        rows_per_second: Since the dispatch began.
        eta_seconds: Until the last partition, None before the first is done.
        waiting_seconds: For how long the cluster has had no worker; None while it has one.
    """

    done: int
    total: int
    rows: int
    rejected: int
    rows_per_second: float
    eta_seconds: float | None
    waiting_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


ProgressCallback = Callable[[Progress], None]


def run_work(work: Work, context: ScoringContext) -> dict[str, Any]:
    """The Dask task: score one partition, count its rows on the worker, return the receipt as JSON."""
    worker = get_worker()
    receipt = score_partition(work.partition, work.work_id, context, worker.address)
    counter = worker.plugins.get(RowsScored.name)
    if isinstance(counter, RowsScored):
        counter.rows += receipt.scored
    return receipt.to_json()


class Dispatch:
    """One pass over a list of partitions on a cluster, as wide as the cluster is at the time.

    Args:
        client: Of the cluster; used on its own event loop.
        context: What the partitions share.
        group: Name of the task group on the Dask dashboard.
        attempt: Makes the keys of this dispatch its own, so that ending it never cancels another's.
        progress: Called while partitions end, a few times a second at the most, and at the end; also while the cluster
            has no worker.
    """

    def __init__(
        self,
        client: Client,
        context: ScoringContext,
        *,
        group: str,
        attempt: str,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._client = client
        self._context = context
        self._group = group
        self._attempt = attempt
        self._progress = progress
        self._todo: deque[Work] = deque()
        self._window = self._lanes = 0
        self._over = asyncio.Event()
        self._receipts: list[Receipt] = []
        self._rows = self._rejected = 0
        self._failures: list[CorpuscoreError] = []
        self._started = self._reported = 0.0
        self._total = 0

    async def run(self, works: Sequence[Work]) -> list[Receipt]:
        """Score all of them.

        Returns:
            A receipt for each, in the order in which they ended.

        Raises:
            CorpuscoreError: One partition failed; the others were scored all the same.
            CorpusError, ClusterUnavailable: Several did; the message names them.
            ClusterUnavailable: The cluster cannot be reached, or had no worker for too long.
        """
        self._started, self._total = time.monotonic(), len(works)
        self._todo.extend(works)
        if not works:
            return []
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow(group))
                await self._over.wait()
                follower.cancel()
        except ExceptionGroup as errors:
            raise self._translate(errors.exceptions[0]) from errors
        self._report()
        self._raise_failures()
        return self._receipts

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """Keep as many lanes open as the cluster has threads for: workers come and go while a dispatch runs."""
        while True:
            if not threads_of(self._client):
                await wait_for_workers(self._client, self._report_now_and_then)
            self._window = _WINDOW * max(threads_of(self._client), 1)
            for _ in range(min(self._window - self._lanes, len(self._todo))):
                self._lanes += 1
                group.create_task(self._lane())
            await asyncio.sleep(_FOLLOW_SECONDS)

    async def _lane(self) -> None:
        """Take one partition after the other: so many lanes, so many in flight. One too many ends, never the last."""
        while self._todo and self._lanes <= self._window:
            work = self._todo.popleft()
            try:
                self._done(await self._score(work))
            except (CorpusError, TransientError) as error:
                self._failed(error)
        self._lanes -= 1
        if not self._lanes:
            self._over.set()

    async def _score(self, work: Work) -> Receipt:
        for _ in range(_LOST_LIMIT):
            future = self._submit(work)
            try:
                return Receipt.from_json(await future)
            except KilledWorker as error:
                raise ClusterUnavailable(
                    f"{work.partition.uri} [{work.partition.start}:{work.partition.stop}] ended "
                    f"{error.allowed_failures + 1} workers, one after the other",
                    next_step="look into the workers' logs (out of memory?), then plan with fewer --partition-rows",
                ) from error
            except (NoWorkerError, NoValidWorkerError) as error:  # the scheduler has a limit of its own for waiting
                raise ClusterUnavailable(
                    f"The cluster at {address_of(self._client)} had no worker for {error.timeout:,.0f} s",
                    rule="Its distributed.scheduler.no-workers-timeout is not longer",
                    next_step="start workers, then run this again; what was scored is kept",
                ) from error
            except CancelledError:  # the cluster lost it; ours would be asyncio's
                continue
            finally:
                future.release()
        raise ClusterUnavailable(
            f"The cluster lost {work.partition.uri} [{work.partition.start}:{work.partition.stop}] {_LOST_LIMIT} times",
            next_step="look into the scheduler's log, then run this again; what was scored is kept",
        )

    def _submit(self, work: Work) -> Future[Any]:
        key = (self._group, work.work_id, self._attempt)
        return self._client.submit(run_work, work, self._context, key=key, pure=False)

    def _done(self, receipt: Receipt) -> None:
        self._receipts.append(receipt)
        self._rows += receipt.rows
        self._rejected += receipt.rejected
        self._report_now_and_then()

    def _report_now_and_then(self, waiting_seconds: float | None = None) -> None:
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._report(waiting_seconds)

    def _report(self, waiting_seconds: float | None = None) -> None:
        self._reported = time.monotonic()
        if self._progress:
            self._progress(self.progress(waiting_seconds))

    def _failed(self, error: CorpuscoreError) -> None:
        self._failures.append(error)
        if len(self._failures) >= _FAILURE_LIMIT:
            self._raise_failures()

    def progress(self, waiting_seconds: float | None = None) -> Progress:
        """How far it is now."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        done = len(self._receipts)
        return Progress(
            done=done,
            total=self._total,
            rows=self._rows,
            rejected=self._rejected,
            rows_per_second=self._rows / seconds,
            eta_seconds=seconds / done * (self._total - done) if done else None,
            waiting_seconds=waiting_seconds,
        )

    def _raise_failures(self) -> None:
        """One failure is raised as it is; of several, permanent ones decide the type."""
        if not self._failures:
            return
        permanent = [error for error in self._failures if isinstance(error, CorpusError)]
        first = (permanent or self._failures)[0]
        if len(self._failures) == 1:
            raise first
        listed = "; ".join(str(error) for error in self._failures[:5])
        more = f" (and {len(self._failures) - 5} more)" if len(self._failures) > 5 else ""
        kind = CorpusError if permanent else ClusterUnavailable
        raise kind(
            f"{len(self._failures)} partitions could not be scored: {listed}{more}",
            next_step="correct these, then run this again; the other partitions are scored and kept",
        )

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, OSError | CommClosedError | ClosedClientError):
            return unreachable(address_of(self._client), error)
        return error
