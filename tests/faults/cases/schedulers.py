"""The scheduler of a cluster: restarted, gone for good, back after a while, stopped."""

from __future__ import annotations

import signal
import time

from tests.faults.case import case
from tests.faults.scene import Scene


@case("scheduler: restarted", limit=150, hurts=True, short=1)
def restarted(scene: Scene) -> None:
    """The scheduler gets SIGKILL and is started again at once at the same address, and workers with it."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_scheduler()
    scene.servers.cluster.start_scheduler()
    scene.servers.cluster.start_workers()
    scene.finish(command, reruns=1)


@case("scheduler: back after a while", limit=150, hurts=True)
def back(scene: Scene) -> None:
    """The scheduler gets SIGKILL; after some seconds one is there again at the same address, with workers."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_scheduler()
    scene.servers.cluster.end_workers()
    scene.pause(15.0)
    scene.servers.cluster.start()
    scene.succeeds(command)


@case("scheduler: back after a minute", limit=240, hurts=True, seeds=2)
def back_late(scene: Scene) -> None:
    """The scheduler is gone for more than a minute, and the command waits for it."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_SCHEDULER"] = "120s"
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_scheduler()
    scene.servers.cluster.end_workers()
    time.sleep(60 + scene.random.uniform(0.0, 15.0))
    scene.servers.cluster.start()
    scene.succeeds(command)


@case("scheduler: gone for good", limit=90, hurts=True, short=1)
def gone(scene: Scene) -> None:
    """The scheduler gets SIGKILL and nobody starts it: said after a stated time; the same command later goes on."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_SCHEDULER"] = "5s"
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_scheduler()
    scene.fails(command, "scheduler")
    scene.servers.cluster.end()
    scene.servers.cluster.start()
    scene.succeeds(scene.start())


@case("scheduler: stopped and woken", limit=120)
def woken(scene: Scene) -> None:
    """The scheduler gets SIGSTOP, and SIGCONT some seconds later."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.kill([scene.servers.cluster.scheduler], signal.SIGSTOP)
    scene.pause(6.0)
    scene.kill([scene.servers.cluster.scheduler], signal.SIGCONT)
    scene.finish(command, reruns=1)


@case("scheduler: stopped for good", limit=180, hurts=True, seeds=3)
def stopped(scene: Scene) -> None:
    """The scheduler gets SIGSTOP and answers nothing, its connections open: said after a stated time."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_SCHEDULER"] = "5s"
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.kill([scene.servers.cluster.scheduler], signal.SIGSTOP)
    scene.fails(command, "scheduler")
    scene.servers.cluster.end()
    scene.servers.cluster.start()
    scene.succeeds(scene.start())


@case("scheduler: not there at the start", limit=90, hurts=True, seeds=3)
def absent(scene: Scene) -> None:
    """Nobody answers at the address: one clear message, within a stated time."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_SCHEDULER"] = "3s"
    scene.servers.cluster.end()
    scene.fails(scene.start(), "scheduler")
    scene.servers.cluster.start()
    scene.succeeds(scene.start())
