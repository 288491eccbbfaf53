"""The keeper of a local cluster: starts its worker processes, and starts others where a nanny has given up.

A nanny starts a worker that ends again, but not one that ends while it is being started: then the nanny closes, or
waits for ever, and nobody else asks. The keeper does not trust nannies: a worker is there when the scheduler has it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import signal
import time
from collections.abc import Coroutine, Hashable
from contextlib import suppress
from typing import Any

from distributed import LocalCluster, Nanny
from distributed.core import Status

from corpuscore.errors import ClusterUnavailable

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5

#: How long a worker process may take to start; and how long a nanny without a process may take to start one itself.
_START_SECONDS = 90.0
_RESTART_SECONDS = 3.0

#: A worker that stays for so long has started well; one that does not is replaced so many times in a row.
_SETTLED_SECONDS = 30.0
_REPLACEMENTS = 5

#: How long a worker may take to end when it is asked to, and a nanny when its process is gone.
_END_SECONDS = 8.0
_BIRTH_SECONDS = 0.02

_troubles: dict[str, ClusterUnavailable] = {}


def trouble_of(address: str) -> ClusterUnavailable | None:
    """Why the local cluster at this address was given up; None while it was not, or where it is not of this process."""
    return _troubles.get(address)


class Keeper:
    """Looks after the workers of one local cluster, on the cluster's event loop.

    Args:
        cluster: Its `worker_spec` says what is to run; what runs already is kept.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._address = cluster.scheduler_address
        self._missing: dict[Hashable, float] = {}
        self._there: dict[Hashable, float] = {}
        self._replaced: dict[Hashable, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._nannies: set[Nanny] = set(cluster.workers.values())  # Dask forgets them, and their processes with them
        self._running = self._submitted(self._run())

    def wait(self) -> None:
        """Wait until all workers have come.

        Raises:
            ClusterUnavailable: They end as soon as they have started.
        """
        while len(self._there) < len(self._cluster.worker_spec):
            if trouble := trouble_of(self._address):
                raise trouble
            if self._running.done():
                self._running.result()
            time.sleep(0.02)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, then the cluster; what does not end when asked is killed.

        Args:
            at_once: Nobody is asked: somebody waits who has interrupted the work, and no part counts by halves.
        """
        self._running.cancel()
        try:
            self._submitted(self._end(at_once)).result()
        finally:
            self._cluster._loop_runner.stop()
            _troubles.pop(self._address, None)

    def _submitted(self, work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        loop: Any = self._cluster.loop
        return asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop)

    async def _run(self) -> None:
        scheduler: Any = self._cluster.scheduler
        while True:
            now = time.monotonic()
            present = {worker.name for worker in scheduler.workers.values()}
            for name in list(self._cluster.worker_spec):
                if name in present:
                    self._found(name, now)
                elif self._is_lost(name, now):
                    self._replace(name, now)
            await asyncio.sleep(_LOOK_SECONDS if self._there else _LOOK_SECONDS / 10)

    def _found(self, name: Hashable, now: float) -> None:
        self._missing.pop(name, None)
        if now - self._there.setdefault(name, now) >= _SETTLED_SECONDS:
            self._replaced.pop(name, None)

    def _is_lost(self, name: Hashable, now: float) -> bool:
        """Whether a worker is away, and its nanny does nothing for it."""
        self._there.pop(name, None)
        away = now - self._missing.setdefault(name, now)
        nanny: Nanny | None = self._cluster.workers.get(name)
        if nanny is None:
            return True
        patience = _START_SECONDS if nanny.is_alive() or nanny.status == Status.init else _RESTART_SECONDS
        return away >= patience

    def _replace(self, name: Hashable, now: float) -> None:
        """Start a worker in the place of one that is gone, if any."""
        gone = self._cluster.workers.pop(name, None)
        if gone is not None or name in self._replaced:
            self._replaced[name] = self._replaced.get(name, 0) + 1
            log.warning("Worker %s ended, and its nanny started no other: a new one is started.", name)
        if self._replaced.get(name, 0) > _REPLACEMENTS:
            if gone is not None:
                self._do(_ended(gone))
            self._give_up(name, gone)
            return
        self._missing[name] = now
        spec = self._cluster.worker_spec[name]
        nanny = spec["cls"](self._address, **{"name": name, **spec["options"]})
        self._nannies.add(nanny)
        self._cluster._created.add(nanny)
        self._cluster.workers[name] = nanny
        self._do(_started(nanny, gone))

    def _give_up(self, name: Hashable, nanny: Nanny | None) -> None:
        said = [line for _, line in nanny.get_logs()][-3:] if nanny is not None else []
        _troubles[self._address] = ClusterUnavailable(
            f"Worker {name} of the local cluster ended {_REPLACEMENTS} times in a row right after it was started"
            + (f"; its nanny said: {' | '.join(said)}" if said else ""),
            next_step="look at what the workers wrote above (out of memory, killed by the system?), then run this "
            "again; what was scored is kept",
        )
        raise _troubles[self._address]

    def _do(self, what: Any) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, at_once: bool) -> None:
        cluster = self._cluster
        for nanny in self._nannies:
            _start_no_more(nanny)
        if waiting := {*self._tasks, *cluster._futures}:  # for nannies, which may never answer
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting, timeout=_END_SECONDS)
        cluster._futures.clear()
        await asyncio.gather(*(_ended(nanny, at_once=at_once) for nanny in self._nannies))
        cluster.workers.clear()
        cluster.worker_spec.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(cluster._close(), _END_SECONDS)


async def _started(nanny: Nanny, gone: Nanny | None) -> None:
    """Start a nanny once the one before has ended: two workers of one name would come in each other's way."""
    if gone is not None:
        await _ended(gone)
    with suppress(Exception):  # of any kind, from its process: the keeper sees that no worker has come
        await asyncio.wait_for(nanny, _START_SECONDS)


async def _ended(nanny: Any, *, at_once: bool = False) -> None:
    """End a nanny and its worker: when asked, or else (or at once) by force; then nothing of them is left."""
    _start_no_more(nanny)
    try:
        if not at_once and nanny.status == Status.running and nanny.is_alive():
            await asyncio.wait_for(nanny.close(timeout=_END_SECONDS / 2), _END_SECONDS)
    except Exception as error:
        log.debug("A nanny did not close: %r", error)
    await _killed(nanny)
    if nanny.status != Status.closed:
        with suppress(Exception):  # it may wait for what never comes; its connections are closed in any case
            await asyncio.wait_for(nanny.close(timeout=1), 2)
        with suppress(Exception):
            await asyncio.wait_for(super(Nanny, nanny).close(), 2)
        nanny.status = Status.closed


def _start_no_more(nanny: Any) -> None:
    """Keep a nanny from starting a process: one that is about to would do so after its end.

    It is told that the start failed, not by an error: of that, one whose worker has ended by itself logs a traceback.
    """

    async def refused() -> Status:
        return Status.failed

    nanny.instantiate = refused


async def _killed(nanny: Any) -> None:
    """Kill a nanny's process if it runs still; one that is being born is waited for, so that it isn't missed."""
    process = nanny.process.process if nanny.process is not None else None
    until = time.monotonic() + _END_SECONDS
    while process is not None and process.exitcode is None and time.monotonic() < until:
        if process.is_alive():
            with suppress(ProcessLookupError):  # it has ended, and its watcher is about to say so
                os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(_BIRTH_SECONDS)
