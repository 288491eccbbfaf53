"""Airflow: its processes killed while tasks wait or work, tasks cleared, and a Dask scheduler that goes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.faults.case import case
from tests.faults.profile import Profile
from tests.faults.scene import Scene
from tests.faults.stack import DagRun

_LIMIT = 420.0
_PROFILE = Profile(front="airflow")


def _while_deferred(scene: Scene, strike: Callable[[DagRun], None]) -> None:
    """Start a run, strike while its scoring waits in the triggerer and workers are held, and see that it ends well."""
    rule_id = scene.rule("score", "hold", role="worker", nth=scene.some(1, 12))
    run = scene.trigger()
    scene.control.wait_held(rule_id, lambda: run.running, seconds=150)
    run.wait_deferred()
    try:
        strike(run)
    finally:
        scene.control.release(rule_id)
    run.finish()


@case("Airflow: triggerer killed", profile=_PROFILE, limit=_LIMIT, seeds=3)
def triggerer(scene: Scene) -> None:
    """The triggerer gets SIGKILL while tasks are deferred, and another one is started some seconds later."""
    _while_deferred(scene, lambda _: scene.servers.stack.restart("triggerer", scene.random.uniform(0.0, 10.0)))


@case("Airflow: scheduler killed", profile=_PROFILE, limit=_LIMIT, seeds=3)
def scheduler(scene: Scene) -> None:
    """Airflow's scheduler gets SIGKILL while tasks are deferred, and another one is started some seconds later."""
    _while_deferred(scene, lambda _: scene.servers.stack.restart("scheduler", scene.random.uniform(0.0, 10.0)))


@case("Airflow: API server killed", profile=_PROFILE, limit=_LIMIT, seeds=3)
def api_server(scene: Scene) -> None:
    """The API server, which tasks talk to, gets SIGKILL while tasks are deferred, and is started again."""
    _while_deferred(scene, lambda _: scene.servers.stack.restart("api-server", scene.random.uniform(0.0, 10.0)))


@case("Airflow: task cleared while deferred", profile=_PROFILE, limit=_LIMIT, seeds=3)
def cleared(scene: Scene) -> None:
    """The scoring tasks are cleared while they are deferred: the first attempt must not take the second one's work."""
    _while_deferred(scene, lambda run: run.clear("score"))


@case("Airflow: Dask scheduler gone and back while deferred", profile=_PROFILE, limit=_LIMIT, seeds=3, hurts=True)
def dask_scheduler(scene: Scene) -> None:
    """The Dask scheduler gets SIGKILL while tasks are deferred, and is back at the same address some seconds later."""

    def strike(run: DagRun) -> None:
        scene.servers.cluster.end_scheduler()
        scene.servers.cluster.end_workers()
        time.sleep(scene.random.uniform(5.0, 30.0))
        scene.servers.cluster.start()

    _while_deferred(scene, strike)


@case("Airflow: task process killed", profile=_PROFILE, limit=_LIMIT, seeds=3)
def task_process(scene: Scene) -> None:
    """The process of a task gets SIGKILL before, in or after its stage; its next attempt does it again."""
    scene.strike(scene.random.choice(("planned", "validate", "load", "append", "record", "loaded", "report")))
    scene.trigger().finish()
    assert scene.control.struck(), "no task was struck"
