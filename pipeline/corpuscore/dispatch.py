"""Dask dispatches: one task a partition, a bounded window in flight, a receipt-sized result.

Nothing here is trusted to survive. A lost client, worker or scheduler costs the tasks that were in flight, and the
next dispatch finds the receipts of all that had ended. Cancelling is only a courtesy to the cluster: a running thread
goes on and writes its receipt.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from corpuscore.cluster import InWork, address_of, threads_of, unreachable, wait_for_workers, watched
from corpuscore.cluster.connecting import LOST
from corpuscore.errors import (
    ClusterUnavailable,
    CorpuscoreError,
    CorpusError,
    SchedulerLost,
    Suspected,
    TransientError,
    from_json,
)
from corpuscore.patience import LINE_SECONDS, STALL, Wait
from corpuscore.records import Receipt
from corpuscore.scoring.partition import ScoringContext
from corpuscore.tally import Tally
from corpuscore.tasks import Work, limits, run_alone, run_work

log = logging.getLogger(__name__)

#: Tasks in flight for each thread of the cluster: one running, one waiting at the worker.
_WINDOW = 2

#: How often the number of tasks in flight is fitted to the cluster; a client learns of its size every two seconds.
_FOLLOW_SECONDS = 1.0

#: A future that the cluster lost (scheduler restarted, key cancelled by someone else) is submitted again this often.
_LOST_LIMIT = 3

#: Partitions that may fail on their own account before the dispatch stops and says so.
_FAILURE_LIMIT = 20

#: A suspect is sent again where the workers on which it was tried alone were lost, which is not its doing.
_ALONE_LIMIT = 10


class Dispatch:
    """One pass over a list of partitions on a cluster, as wide as the cluster is at the time.

    Args:
        client: Of the cluster; used on its own event loop.
        context: What the partitions share.
        group: Name of the task group on the Dask dashboard.
        attempt: Makes the keys of this dispatch its own, so that ending it never cancels another's.
        tally: Takes the receipts, and tells progress; also while the cluster has no worker.
        say: Takes a line about what is waited for, or went wrong and is mended.
    """

    def __init__(
        self,
        client: Client,
        context: ScoringContext,
        *,
        group: str,
        attempt: str,
        tally: Tally,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self._client = client
        self._context = context
        self._group = group
        self._attempt = attempt
        self._tally = tally
        self._say = say
        self._todo: deque[Work] = deque()
        self._window = self._lanes = 0
        self._over = asyncio.Event()
        self._waited_for: set[str] = set()
        self._failures: list[CorpuscoreError] = []

    async def run(self, works: Sequence[Work]) -> None:
        """Score all of them; the tally has a receipt for each then.

        Raises:
            CorpuscoreError: One partition failed, or several for the same reason; the others were scored all the same.
            CorpusError, ClusterUnavailable: Several did; the message names them.
            SchedulerLost: The scheduler went away; what was scored is kept, and another dispatch can do the rest.
            ClusterUnavailable: The cluster had no worker for too long.
            ClusterError: A worker joined that does not fit this client.
        """
        if not works:
            return
        self._todo.extend(works)
        async with watched(self._client, self._say) as self._watch:
            await self._watch.guard(self._all())
        self._tally.report()
        self._raise_failures()

    async def _all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow(group))
                await self._over.wait()
                follower.cancel()
        except ExceptionGroup as errors:
            raise self._translate(errors.exceptions[0]) from errors

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """Keep as many lanes open as the cluster has threads for: workers come and go while a dispatch runs."""
        idle, ended = self._idle(), 0
        while True:
            if not threads_of(self._client):
                await wait_for_workers(self._client, self._tally.report_now_and_then, self._say)
            self._window = _WINDOW * max(threads_of(self._client), 1)
            for _ in range(min(self._window - self._lanes, len(self._todo))):
                self._lanes += 1
                group.create_task(self._lane())
            mine = [work for key, work in self._watch.in_work.items() if key in self._waited_for]
            self._tally.in_work(sum(work.rows for work in mine), _phase(mine))
            self._tally.report_now_and_then()
            if ended == self._ended() and not mine:
                idle.over()
            else:
                idle, ended = self._idle(), self._ended()
            await asyncio.sleep(_FOLLOW_SECONDS)

    def _idle(self) -> Wait:
        """Of work that no worker has begun: they may be busy with others', for as long as these take."""
        what = f"No worker of {address_of(self._client)} has begun any of the partitions that were sent"
        return Wait(what, math.inf, self._say, quiet=LINE_SECONDS)

    def _ended(self) -> int:
        return len(self._tally.receipts) + len(self._failures)

    async def _lane(self) -> None:
        """Take one partition after the other: so many lanes, so many in flight. One too many ends, never the last."""
        while self._todo and self._lanes <= self._window:
            work = self._todo.popleft()
            try:
                self._tally.add(await self._score(work))
            except SchedulerLost:
                raise
            except Suspected as error:
                self._try_alone(work, error)
            except (CorpusError, TransientError) as error:
                self._failed(error)
        self._lanes -= 1
        if not self._lanes:
            self._over.set()

    async def _score(self, work: Work) -> Receipt:
        for _ in range(_LOST_LIMIT):
            future = self._submit(work)
            try:
                answer = await self._answer(work, future)
                self._say_found(work, answer)
                return _receipt(answer)
            except KilledWorker as error:
                raise Suspected(
                    f"{work} was on {error.allowed_failures + 1} workers when they ended",
                    next_step="look into the workers' logs, then run this again; what was scored is kept",
                ) from error
            except (NoWorkerError, NoValidWorkerError) as error:  # the scheduler has a limit of its own for waiting
                raise ClusterUnavailable(
                    f"The cluster at {address_of(self._client)} had no worker for {error.timeout:,.0f} s",
                    rule="Its distributed.scheduler.no-workers-timeout is not longer",
                    next_step="start workers, then run this again; what was scored is kept",
                ) from error
            except CancelledError as error:  # the cluster lost it; ours would be asyncio's
                if self._client.status != "running":
                    raise unreachable(address_of(self._client), LOST) from error
            finally:
                future.release()
        raise ClusterUnavailable(
            f"The cluster lost {work} {_LOST_LIMIT} times",
            next_step="look into the scheduler's log, then run this again; what was scored is kept",
        )

    def _submit(self, work: Work) -> Future[Any]:
        if not work.alone:
            return self._client.submit(run_work, work, self._context, key=self._key(work), pure=False)
        return self._client.submit(run_alone, work, self._context, limits(), key=self._key(work), pure=False)

    def _key(self, work: Work) -> tuple[str, str, str]:
        return (self._group, work.work_id, f"{self._attempt}-alone-{work.alone}" if work.alone else self._attempt)

    async def _answer(self, work: Work, future: Future[Any]) -> dict[str, Any]:
        """What the task returns, or Suspected once its figures have stood still for too long."""
        stalled: list[str] = []
        key = str(self._key(work))
        self._waited_for.add(key)
        try:
            async with asyncio.timeout(None) as limit:

                def end(why: str) -> None:
                    stalled.append(why)
                    limit.reschedule(0)

                with self._watch.following(key, end, str(work)):
                    answer: dict[str, Any] = await future
                    return answer
        except TimeoutError:
            if not stalled:  # then it is the task's own
                raise
            raise self._suspect(work, stalled[0]) from None
        finally:
            self._waited_for.discard(key)

    def _suspect(self, work: Work, why: str) -> CorpuscoreError:
        """What becomes of a partition that makes no progress."""
        return Suspected(
            f"{work} {why}",
            rule=f"A partition makes some progress within {STALL.seconds():.0f} s ({STALL.variable})",
            next_step="look into that worker's log, then run this again; what was scored is kept",
        )

    def _try_alone(self, work: Work, error: Suspected) -> None:
        """Put a suspect last, so that few others are in work that could end its worker, see scoring.alone."""
        if work.alone == _ALONE_LIMIT:
            self._failed(error)
            return
        self._todo.append(replace(work, alone=work.alone + 1))
        if not work.alone:
            self._say(f"{error.value}: it is tried alone, after the others.")

    def _say_found(self, work: Work, answer: dict[str, Any]) -> None:
        for document in answer.get("found", ()):
            self._say(f"{work}: a reject is document {document}.")

    def _failed(self, error: CorpuscoreError) -> None:
        self._failures.append(error)
        if len(self._failures) >= _FAILURE_LIMIT:
            self._raise_failures()

    def _raise_failures(self) -> None:
        """Failures with the same words are raised as one of them; of several, permanent ones decide the type."""
        told = list({str(error): error for error in self._failures}.values())
        if not told:
            return
        if len(told) == 1:
            raise told[0]
        permanent = [error for error in told if isinstance(error, CorpusError)]
        listed = "; ".join(map(str, told[:5]))
        more = f" (and {len(told) - 5} more)" if len(told) > 5 else ""
        kind = CorpusError if permanent else ClusterUnavailable
        raise kind(
            f"{len(self._failures)} partitions could not be scored: {listed}{more}",
            next_step="correct these, then run this again; the other partitions are scored and kept",
        )

    def _translate(self, error: Exception) -> Exception:
        """An error of the client's own as the loss that it is; one of a task's own stays what it is."""
        gone = isinstance(error, CommClosedError | ClosedClientError)
        if gone or (isinstance(error, OSError) and self._client.status != "running"):
            return unreachable(address_of(self._client), error)
        return error


def _phase(mine: Sequence[InWork]) -> str:
    """What goes on before the first document is done, in words."""
    if not mine:
        return "sent to the workers"
    return "first documents" if any(work.reading for work in mine) else "loading the model"


def _receipt(answer: dict[str, Any]) -> Receipt:
    if "error" in answer:
        raise from_json(answer["error"])
    return Receipt.from_json(answer["receipt"])
