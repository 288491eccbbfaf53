"""Clocks that are wrong or jump, of the machine that submits and of the store."""

from __future__ import annotations

from tests.faults.case import case
from tests.faults.corpus import objects
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_LOCAL = Profile(cluster="local")
_S3 = Profile(store="s3")
_HOURS = 3600.0


def _changed(scene: Scene) -> None:
    name = scene.random.choice(sorted(scene.objects))
    scene.put(name, objects(2)[name])


@case("clocks: a jump while a run goes on", profile=_LOCAL)
def jump(scene: Scene) -> None:
    """The clock of the run's machine jumps by up to two days, forward or back, at any stage."""
    clock = scene.clock()
    command = scene.start()
    scene.reached(command, scene.random.choice(("planned", "score", "scored", "validated", "load")))
    clock.shift(scene.random.choice((-1, 1)) * scene.random.uniform(0.1, 48) * _HOURS)
    scene.succeeds(command)


@case("clocks: two machines that differ")
def differ(scene: Scene) -> None:
    """A run, a change of an object, a second run, on machines whose clocks are up to two days apart, either way."""
    clock = scene.clock()
    clock.shift(scene.random.choice((0.0, scene.random.uniform(0.1, 48) * _HOURS)))
    scene.succeeds(scene.start())
    _changed(scene)
    clock.shift(scene.random.choice((0.0, -scene.random.uniform(0.1, 48) * _HOURS)))
    scene.succeeds(scene.start())


@case("clocks: the store's is off", profile=_S3)
def store(scene: Scene) -> None:
    """The clock of the object store is up to a day off from that of the machine, before or behind it."""
    clock = scene.servers.s3_clock
    clock.shift(scene.random.choice((-1, 1)) * scene.random.uniform(0.1, 24) * _HOURS)
    scene.later(lambda: clock.shift(0.0))
    scene.succeeds(scene.start())
    _changed(scene)
    scene.succeeds(scene.start())
