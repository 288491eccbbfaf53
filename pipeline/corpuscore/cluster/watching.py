"""The watch on a cluster while work is under way: is its scheduler there, how many workers, which of them is stuck.

One watch a client, shared by all who dispatch through it. Each second it looks at the client, and every few seconds it
asks the scheduler; `corpuscore.patience` has the limits.

| what it sees | what it does |
|---|---|
| the client was cut off, or the scheduler says nothing for `silence` | ends all who use it with SchedulerLost |
| workers that come or go | says so; those that come are checked as the first ones were |
| a worker says nothing for `silence` | says so and restarts it; its partitions go to others |
| a task's figures stand still for `stall`, or it does not begin for `loading` | tells its owner, restarts the worker |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from distributed import Client

from corpuscore.cluster.connecting import LOST, address_of, unreachable
from corpuscore.cluster.keeper import trouble_of
from corpuscore.cluster.shown import IN_WORK
from corpuscore.cluster.versions import check
from corpuscore.errors import SchedulerLost
from corpuscore.patience import LINE_SECONDS, LOADING, SILENCE, STALL

#: Of a look at the client, and of a question to the scheduler, whose answer is longer with each worker.
_LOOK_SECONDS = 1.0
_ASK_SECONDS = 3.0
_ASK_SECONDS_EACH = 0.01

#: After a task's owner was told, so that its key is given up before the worker ends; and for the restart itself.
_BEFORE_RESTART_SECONDS = 0.5
_RESTART_SECONDS = 30.0

T = TypeVar("T")
Say = Callable[[str], None]
Workers = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Followed:
    """A task that somebody waits for, and at how many seconds without progress the next line is due."""

    stalled: Say
    name: str
    next_line: float


class InWork(NamedTuple):
    """A task that a worker has begun.

    Attributes:
        reading: Whether it reads; until then its model is loaded.
        rows: Documents that are done.
    """

    reading: bool
    rows: int


class Watch:
    """What one client's cluster does; follows it by some seconds.

    Attributes:
        in_work: Tasks that workers have begun, by key.
    """

    def __init__(self, client: Client) -> None:
        self.in_work: dict[str, InWork] = {}
        self._client = client
        self._failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._readers: list[Say] = []
        self._followed: dict[str, _Followed] = {}
        self._signs: dict[str, tuple[float, float]] = {}
        self._names: dict[str, str] = {}
        self._most = 0
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._greeting: asyncio.Task[None] | None = None
        self._answered = time.monotonic()

    async def failure(self) -> NoReturn:
        """Wait until the cluster cannot be used any more.

        Raises:
            SchedulerLost: The scheduler went away.
            ClusterUnavailable: A local cluster's workers end as soon as they have started.
            ClusterError: A worker joined that does not fit this client.
        """
        raise await asyncio.shield(self._failed)

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives; when the cluster cannot be used any more, it is cancelled, and that error comes.

        Raises:
            CorpuscoreError: See failure; and whatever the work raises.
        """
        task, failure = asyncio.ensure_future(work), asyncio.ensure_future(self.failure())
        try:
            await asyncio.wait({task, failure}, return_when=asyncio.FIRST_COMPLETED)
            return failure.result() if failure.done() else task.result()
        finally:
            task.cancel()
            failure.cancel()
            await asyncio.gather(task, failure, return_exceptions=True)

    @contextmanager
    def following(self, task: str, stalled: Say, name: str) -> Iterator[None]:
        """Be told, once, when a task makes no progress: the sentence says where and for how long.

        Args:
            task: Its key, as `str` shows it.
            stalled: Called on the event loop; the worker is restarted right after.
            name: For the line that is written each minute until then.
        """
        self._followed[task] = _Followed(stalled, name, LINE_SECONDS)
        try:
            yield
        finally:
            self._followed.pop(task, None)

    async def run(self) -> None:
        """Look until it is cancelled, or until the cluster cannot be used any more."""
        asked = 0.0
        try:
            while True:
                self._check_client()
                if time.monotonic() - asked >= _ASK_SECONDS + len(self._signs) * _ASK_SECONDS_EACH:
                    await self._ask()
                    asked = time.monotonic()
                await asyncio.sleep(_LOOK_SECONDS)
        except Exception as error:
            self._failed.set_result(error)  # of whatever type: nobody may wait for a watch that is blind
        finally:  # a worker that hangs is restarted, also where nobody waits for its work any more
            if self._greeting is not None:
                self._greeting.cancel()
            await asyncio.gather(*self._restarts.values(), return_exceptions=True)

    def _say(self, line: str) -> None:
        for say in list(self._readers):
            say(line)

    def _check_client(self) -> None:
        """A client that lost its scheduler has given up its tasks; whether it finds its way back does not matter."""
        address = address_of(self._client)
        if trouble := trouble_of(address):
            raise trouble
        if self._client.status != "running":
            raise unreachable(address, LOST)
        if self._greeting is not None and self._greeting.done():
            self._greeting.result()

    async def _ask(self) -> None:
        """Ask the scheduler what its workers do; a question that fails is asked again until its silence is too long."""
        silence, scheduler = SILENCE.seconds(), self._client.scheduler
        if scheduler is None:
            return
        with suppress(OSError):  # TimeoutError is one, too
            left = max(self._answered + silence - time.monotonic(), 0.1)
            seen = await asyncio.wait_for(scheduler.identity(n_workers=-1), left)
            self._answered = time.monotonic()
            self._look_at(seen["workers"], silence)
        if time.monotonic() - self._answered >= silence:
            raise SchedulerLost(
                f"The Dask scheduler at {address_of(self._client)} has said nothing for {silence:.0f} s",
                next_step="check that it runs and that this machine reaches it; "
                f"{SILENCE.variable}=5m waits longer for a sign of life",
            )

    def _look_at(self, workers: Workers, silence: float) -> None:
        new = {address: str(worker["name"]) for address, worker in workers.items() if address not in self._names}
        if new and (self._greeting is None or self._greeting.done()):
            self._greeting = asyncio.create_task(self._greet(new))
        self._count(workers)
        self._look_for_silence(workers, silence)
        self._look_for_stalls(workers)

    async def _greet(self, new: Mapping[str, str]) -> None:
        """Check those that are new; where one does not answer yet, all of them are asked again."""
        with suppress(SchedulerLost):  # that is found elsewhere
            if await check(self._client, list(new)) == len(new):
                self._names.update(new)

    def _count(self, workers: Workers) -> None:
        """Say when workers are lost, and when they are back."""
        before, now = len(self._signs), len(workers)
        gone = [address for address in self._signs if address not in workers]
        if gone and now < self._most:
            self._say(f"{now} of {self._most} workers are left: {', '.join(sorted(gone))} ended.")
        elif before < now and before < self._most:
            self._say(f"{now} of {self._most} workers are there again." if now <= self._most else f"{now} workers.")
        self._most = max(self._most, now)
        for address in gone:
            self._signs.pop(address)
            self._names.pop(address, None)

    def _look_for_silence(self, workers: Workers, silence: float) -> None:
        now = time.monotonic()
        for address, worker in workers.items():
            seen, changed = self._signs.get(address, (None, now))
            self._signs[address] = (worker["last_seen"], changed if seen == worker["last_seen"] else now)
            if now - self._signs[address][1] >= silence:
                self._restart(address, f"Worker {address} has said nothing for {silence:.0f} s")

    def _look_for_stalls(self, workers: Workers) -> None:
        self.in_work = {}
        for address, worker in workers.items():
            for task, (still, begun, rows) in worker["metrics"].get(IN_WORK, {}).items():
                self.in_work[task] = InWork(begun, rows)
                if task in self._followed:
                    self._judge(task, still, begun, address)

    def _judge(self, task: str, still: float, begun: bool, address: str) -> None:
        """Say each minute that a task stands still, and end that when it is too long."""
        followed, limit = self._followed[task], (STALL if begun else LOADING).seconds()
        what = "made no progress" if begun else "did not begin to read, since its model did not load,"
        if still >= limit:
            del self._followed[task]
            followed.stalled(f"{what} for {still:.0f} s on {address}")
            self._restart(address, f"Worker {address} has made no progress for {still:.0f} s")
        elif still >= followed.next_line:
            followed.next_line = still + LINE_SECONDS
            self._say(f"{followed.name} {what} for {still:.0f} of {limit:.0f} s on {address}.")
        elif still < LINE_SECONDS:
            followed.next_line = LINE_SECONDS

    def _restart(self, address: str, why: str) -> None:
        if address not in self._restarts:
            self._say(f"{why}: it is restarted.")
            restart = self._restarts[address] = asyncio.create_task(_restarted(self._client, address))
            restart.add_done_callback(lambda _: self._restarts.pop(address, None))


async def _restarted(client: Client, address: str) -> None:
    """End a worker through its nanny, which starts another; one that cannot be reached is struck off the cluster.

    Its tasks go to others. A process that was only stopped may go on later, and find its receipts written.
    """
    await asyncio.sleep(_BEFORE_RESTART_SECONDS)
    scheduler, stimulus = client.scheduler, f"corpuscore-restart-{time.time()}"
    if scheduler is None:
        return
    with suppress(OSError):
        order = scheduler.restart_workers(
            workers=[address],
            timeout=_RESTART_SECONDS / 2,
            wait_for_workers=False,
            on_error="return",
            stimulus_id=stimulus,
        )
        await asyncio.wait_for(order, _RESTART_SECONDS)
    with suppress(OSError):
        await asyncio.wait_for(scheduler.unregister(address=address, stimulus_id=stimulus), _RESTART_SECONDS)


class _Shared:
    """A watch and those who use it."""

    def __init__(self, client: Client) -> None:
        self.watch = Watch(client)
        self.users = 0
        self.task = asyncio.create_task(self.watch.run())


_watches: WeakKeyDictionary[Client, _Shared] = WeakKeyDictionary()


@asynccontextmanager
async def watched(client: Client, say: Say) -> AsyncIterator[Watch]:
    """The watch on a client's cluster, the same for all who ask; the last one out ends it.

    Args:
        client: Used on its own event loop.
        say: Takes each line about the cluster.
    """
    shared = _watches.get(client)
    if shared is None or shared.task.done():
        shared = _watches[client] = _Shared(client)
    shared.users += 1
    shared.watch._readers.append(say)
    try:
        yield shared.watch
    finally:
        shared.users -= 1
        shared.watch._readers.remove(say)
        if not shared.users:
            shared.task.cancel()
            await asyncio.gather(shared.task, return_exceptions=True)
