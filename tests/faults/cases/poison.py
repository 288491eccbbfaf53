"""Documents that end, or hold up, the process that scores them."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.case import case
from tests.faults.scene import Profile, Scene

_LOCAL = Profile(cluster="local")
_TIGHT = Profile(cluster="tight")


def _poisoned(scene: Scene, kind: str, reason: str, documents: int = 1, objects: int = 1) -> None:
    """Mark documents of objects, and see that they alone are rejected, with their reason."""
    for name in scene.random.sample(sorted(scene.objects), objects):
        found = list(scene.objects[name])
        for at in scene.random.sample([at for at, item in enumerate(found) if item.text], documents):
            found[at] = replace(found[at], text=f"POISON-{kind} {found[at].text}")
            scene.poisoned[found[at].id] = reason
        scene.put(name, found)
    scene.succeeds(scene.start())


@case("poison: SIGSEGV", limit=180, short=1)
def segv(scene: Scene) -> None:
    """A document crashes the process that scores it."""
    _poisoned(scene, "SIGSEGV", "killed")


@case("poison: SIGSEGV, local cluster", profile=_LOCAL, limit=180)
def segv_local(scene: Scene) -> None:
    """The same in the run's own cluster."""
    _poisoned(scene, "SIGSEGV", "killed")


@case("poison: SIGABRT", limit=180)
def abort(scene: Scene) -> None:
    """A document makes a library abort."""
    _poisoned(scene, "SIGABRT", "killed")


@case("poison: SIGKILL", limit=180)
def kill(scene: Scene) -> None:
    """A document makes the machine kill the process."""
    _poisoned(scene, "SIGKILL", "killed")


@case("poison: exit", limit=180)
def leave(scene: Scene) -> None:
    """A document makes the process leave without a word."""
    _poisoned(scene, "EXIT", "killed")


@case("poison: memory", profile=_TIGHT, limit=240, seeds=5)
def memory(scene: Scene) -> None:
    """A document takes memory without end, on workers with a memory limit."""
    _poisoned(scene, "MEMORY", "killed")


@case("poison: hang", limit=300, seeds=5)
def hang(scene: Scene) -> None:
    """A document is never done."""
    scene.environment["DASK_CORPUSCORE__STALL"] = "6s"
    _poisoned(scene, "HANG", "hung")


@case("poison: endless loop", limit=300, seeds=3)
def loop(scene: Scene) -> None:
    """A document is never done, and holds the interpreter while it is not."""
    scene.environment["DASK_CORPUSCORE__STALL"] = "6s"
    _poisoned(scene, "LOOP", "hung")


@case("poison: two in an object", limit=240)
def two(scene: Scene) -> None:
    """Two documents of one object crash, perhaps in one partition."""
    _poisoned(scene, "SIGSEGV", "killed", documents=2)


@case("poison: in two objects", limit=240)
def two_objects(scene: Scene) -> None:
    """A document of each of two objects crashes."""
    _poisoned(scene, "SIGSEGV", "killed", objects=2)
