"""Documents that end, or hold up, the process that scores them."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.case import case
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_LOCAL = Profile(cluster="local")
_TIGHT = Profile(cluster="tight")
_ENDS = ("SIGSEGV", "SIGABRT", "SIGKILL", "EXIT")


def _poisoned(scene: Scene, kind: str, reason: str, documents: int = 1, objects: int = 1) -> None:
    """Mark documents of objects, and see that they alone are rejected, with their reason."""
    for name in scene.random.sample(sorted(scene.objects), objects):
        found = list(scene.objects[name])
        for at in scene.random.sample([at for at, item in enumerate(found) if item.text], documents):
            found[at] = replace(found[at], text=f"POISON-{kind} {found[at].text}")
            scene.poisoned[found[at].id] = reason
        scene.put(name, found)
    scene.succeeds(scene.start())


@case("poison: a crash", limit=180, short=1)
def crash(scene: Scene) -> None:
    """A document ends the process that scores it: SIGSEGV, SIGABRT, SIGKILL, or an exit without a word."""
    _poisoned(scene, scene.random.choice(_ENDS), "killed")


@case("poison: a crash, local cluster", profile=_LOCAL, limit=180)
def crash_local(scene: Scene) -> None:
    """The same in the run's own cluster."""
    _poisoned(scene, scene.random.choice(_ENDS), "killed")


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


@case("poison: two crashes", limit=240)
def two(scene: Scene) -> None:
    """Two documents crash: of one object, perhaps in one partition, or of two."""
    documents = scene.some(1, 2)
    _poisoned(scene, "SIGSEGV", "killed", documents=documents, objects=3 - documents)
