"""The process that submits: killed, told to end, and several at once."""

from __future__ import annotations

import signal

from tests.faults.case import case
from tests.faults.command import Fault
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_LOCAL = Profile(cluster="local")
_S3 = Profile(store="s3")
_POSTGRESQL = Profile(warehouse="postgresql")

#: Where a submitting process is while a run goes on.
_STAGES = (
    "plan",
    "planned",
    "score",
    "scored",
    "validate",
    "validated",
    "load",
    "append",
    "record",
    "loaded",
    "report",
)


@case("submitter: killed while scoring", short=1)
def killed(scene: Scene) -> None:
    """The command gets SIGKILL while workers score; the same command again does the rest."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 24))
    command.send(signal.SIGKILL)
    scene.killed(command)
    scene.succeeds(scene.start())


@case("submitter: killed at a stage")
def killed_at_stage(scene: Scene) -> None:
    """The command gets SIGKILL before, in or after any of its stages; the same command again does the rest."""
    _killed_at_a_stage(scene)


@case("submitter: killed at a stage, PostgreSQL", profile=_POSTGRESQL)
def killed_at_stage_postgresql(scene: Scene) -> None:
    """The same with a server as warehouse, which notices a dead client by itself."""
    _killed_at_a_stage(scene)


def _killed_at_a_stage(scene: Scene) -> None:
    scene.strike(scene.random.choice(_STAGES), role="driver")
    scene.killed(scene.start())
    scene.finish(reruns=0)


@case("submitter: killed with its local cluster", profile=_LOCAL)
def killed_local(scene: Scene) -> None:
    """The command gets SIGKILL, and so its own scheduler and nannies; the workers must not stay."""
    command = scene.start()
    scene.reached(command, "score", scene.some(1, 16))
    command.send(signal.SIGKILL)
    scene.killed(command)
    scene.nothing_runs(within=60)
    scene.succeeds(scene.start())


def _told_to_end(scene: Scene, sign: signal.Signals) -> None:
    command = scene.start()
    scene.reached(command, scene.random.choice(("score", "receipted", "read")), scene.some(1, 16))
    command.send(sign, group=sign == signal.SIGINT)
    ended = scene.killed(command, within=30)
    if ended.status == 0:
        raise Fault(f"{sign.name} was taken for success")
    if "Traceback" in ended.err:
        raise Fault(f"{sign.name} shows a traceback: {ended.tail}")
    if sign == signal.SIGINT and "are kept, and the same command goes on" not in ended.err:
        raise Fault(f"{sign.name} does not say what is kept: {ended.tail}")
    scene.nothing_runs(within=20)
    scene.succeeds(scene.start())


@case("submitter: TERM with its local cluster", profile=_LOCAL)
def term(scene: Scene) -> None:
    """The command gets SIGTERM while its own workers score: it and they end, without a traceback."""
    _told_to_end(scene, signal.SIGTERM)


@case("submitter: INT with its local cluster", profile=_LOCAL, short=1)
def interrupted(scene: Scene) -> None:
    """Ctrl-C, which reaches the whole process group: it ends, without a traceback."""
    _told_to_end(scene, signal.SIGINT)


@case("submitter: INT on a shared cluster")
def interrupted_shared(scene: Scene) -> None:
    """Ctrl-C while the workers of a cluster that others use, too, score."""
    _told_to_end(scene, signal.SIGINT)


@case("submitter: two at once on the same work", profile=_POSTGRESQL)
def two(scene: Scene) -> None:
    """The same command twice at the same time, into the same table of a server."""
    scene.two()


@case("submitter: two at once on the same work, S3", profile=_S3, limit=120)
def two_s3(scene: Scene) -> None:
    """The same command twice at the same time, on an object store and a DuckDB file, which has one writer at a time."""
    scene.two()


@case("submitter: two at once, one killed", profile=_POSTGRESQL)
def two_one_killed(scene: Scene) -> None:
    """The same command twice at the same time, of which one gets SIGKILL at some moment."""
    first = scene.start()
    scene.pause(1.0)
    second = scene.start()
    victim, other = scene.random.sample([first, second], 2)
    scene.reached(victim, scene.random.choice(("score", "receipted", "scored", "validated", "load")), 1)
    scene.pause(1.0)
    victim.send(signal.SIGKILL)
    scene.killed(victim)
    scene.finish(other, reruns=2)


@case("submitter: overlapping runs", profile=_POSTGRESQL)
def overlapping(scene: Scene) -> None:
    """Two runs over the same objects at the same time: cut into other partitions, or into another table as well."""
    scene.others = True
    options = {"partition_rows": str(scene.random.choice((10, 40, 1000)))}
    if scene.random.random() < 0.4:
        options = {"table": f"{scene.table.name}_too"}
    scene.two(**options)


@case("submitter: overlapping runs, one killed", profile=_POSTGRESQL)
def other_cut_killed(scene: Scene) -> None:
    """Two runs over the same objects, cut otherwise, of which one gets SIGKILL at some moment."""
    scene.others = True
    first = scene.start()
    scene.pause(1.0)
    second = scene.start(partition_rows="10")
    victim, other = scene.random.sample([first, second], 2)
    scene.pause(4.0)
    victim.send(signal.SIGKILL)
    scene.killed(victim)
    scene.finish(other, reruns=2)
    scene.succeeds(scene.start())


@case("everything: TERM to every process at once", profile=_LOCAL, limit=60)
def everything(scene: Scene) -> None:
    """The machine goes down: every process of the run gets SIGTERM at the same moment."""
    _end_all(scene, signal.SIGTERM)


@case("everything: KILL to every process at once", profile=_LOCAL, limit=60)
def everything_killed(scene: Scene) -> None:
    """The machine loses its power: every process of the run gets SIGKILL at the same moment."""
    _end_all(scene, signal.SIGKILL)


def _end_all(scene: Scene, sign: signal.Signals) -> None:
    command = scene.start()
    scene.reached(command, scene.random.choice(("start", "read", "score", "receipted")), scene.some(1, 16))
    scene.kill(scene.processes(), sign)
    scene.killed(command, within=30)
    scene.nothing_runs(within=30)
    scene.succeeds(scene.start())
