"""Workers that are killed and stopped."""

from __future__ import annotations

import signal
import time

from tests.faults.case import case
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_LOCAL = Profile(cluster="local")


def _killed_at(scene: Scene, point: str, *, most: int) -> None:
    scene.strike(point, nth=scene.some(1, most), role="worker")
    scene.succeeds(scene.start())
    assert len(scene.control.struck()) == 1


@case("workers: killed while reading")
def reading(scene: Scene) -> None:
    """A worker gets SIGKILL as it has opened an object."""
    _killed_at(scene, "read", most=24)


@case("workers: killed while scoring")
def scoring(scene: Scene) -> None:
    """A worker gets SIGKILL with scores in its memory."""
    _killed_at(scene, "score", most=24)


@case("workers: killed between part and receipt", short=1)
def between(scene: Scene) -> None:
    """A worker gets SIGKILL when its part is there and its receipt is not."""
    _killed_at(scene, "parted", most=24)


@case("workers: killed after the receipt")
def after(scene: Scene) -> None:
    """A worker gets SIGKILL when its receipt is there, before anybody is told."""
    _killed_at(scene, "receipted", most=24)


@case("workers: killed at any moment, local cluster", profile=_LOCAL)
def any_moment(scene: Scene) -> None:
    """A worker of the run's own cluster gets SIGKILL at some moment of the scoring."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 20))
    scene.pause(0.3)
    scene.kill([scene.random.choice(scene.workers())])
    scene.succeeds(command)


@case("workers: killed while starting", profile=_LOCAL, seeds=10, short=1)
def starting(scene: Scene) -> None:
    """A worker process of the run's own cluster gets SIGKILL while its nanny starts it."""
    scene.strike("start", nth=scene.some(1, 2), role="worker", after=scene.random.uniform(0.0, 2.0))
    scene.succeeds(scene.start())


@case("workers: killed in a storm", profile=_LOCAL, limit=150)
def storm(scene: Scene) -> None:
    """All workers get SIGKILL, again and again, also those that have just been started."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 8))
    for _ in range(scene.some(2, 4)):
        scene.kill(scene.workers())
        time.sleep(scene.random.uniform(0.2, 2.5))
    scene.finish(command, reruns=1)


@case("workers: stopped and woken")
def woken(scene: Scene) -> None:
    """A worker gets SIGSTOP in the middle, and SIGCONT some seconds later."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 20))
    victim = [scene.random.choice(scene.workers())]
    scene.kill(victim, signal.SIGSTOP)
    time.sleep(scene.random.uniform(0.5, 4.0))
    scene.kill(victim, signal.SIGCONT)
    scene.succeeds(command)


@case("workers: stopped for good", limit=120, hurts=True, seeds=10)
def stopped(scene: Scene) -> None:
    """A worker gets SIGSTOP and is never woken: its partitions are given to others."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.kill([scene.random.choice(scene.workers())], signal.SIGSTOP)
    scene.succeeds(command)


@case("workers: all gone, and new ones come", limit=120, hurts=True, seeds=10)
def replaced(scene: Scene) -> None:
    """Workers and nannies get SIGKILL; others join the cluster some seconds later."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_workers()
    scene.pause(3.0)
    scene.servers.cluster.start_workers()
    scene.succeeds(command)


@case("workers: all gone for good", limit=60, hurts=True, seeds=10)
def gone(scene: Scene) -> None:
    """Workers and nannies get SIGKILL and nobody comes: said after a stated time; the same command then goes on."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_WORKERS"] = "4s"
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    scene.servers.cluster.end_workers()
    scene.fails(command, "worker")
    scene.servers.cluster.start_workers()
    scene.succeeds(scene.start())
