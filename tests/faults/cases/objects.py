"""Objects of the corpus that change while a run goes on."""

from __future__ import annotations

from tests.faults.case import case
from tests.faults.corpus import Document, objects
from tests.faults.scene import Scene

#: Holds of the command: after the listing, after the plan, after scoring, before the load.
_BEFORE_READ = ("listed", "planned", "score")
_AFTER_READ = ("scored", "validate", "validated", "load")


def _one(scene: Scene) -> str:
    return scene.random.choice(sorted(scene.objects))


def _gone(scene: Scene, name: str) -> None:
    """Delete an object, or rename it."""
    documents = scene.objects[name]
    scene.remove(name)
    if scene.random.random() < 0.5:
        folder, slash, base = name.rpartition("/")
        scene.put(f"{folder}{slash}other-{base}", documents)


def _other(scene: Scene, name: str) -> None:
    """Replace an object, or let it grow."""
    if scene.random.random() < 0.5:
        scene.put(name, objects(2)[name])
        return
    more = [Document(f"{item.id}+", item.text) for item in objects()[name][:7]]
    scene.put(name, [*scene.objects[name], *more])


@case("objects: deleted or renamed before they are read")
def gone_early(scene: Scene) -> None:
    """An object goes between listing, plan and reading: an error that names it; the same command then goes on."""
    name = _one(scene)
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        _gone(scene, name)
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: replaced or appended before they are read", short=1)
def other_early(scene: Scene) -> None:
    """An object changes between listing, plan and reading: an error that names it, never a mixture."""
    name = _one(scene)
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        _other(scene, name)
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: deleted or renamed between score and load")
def gone_late(scene: Scene) -> None:
    """An object goes when it has been scored: with --departed remove its documents are where they belong at the end."""
    scene.arguments["departed"] = "remove"
    with scene.at(scene.random.choice(_AFTER_READ), role="driver") as command:
        _gone(scene, _one(scene))
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: replaced or appended between score and load")
def other_late(scene: Scene) -> None:
    """An object changes when it has been scored: it is loaded as planned, and the next run supersedes it."""
    with scene.at(scene.random.choice(_AFTER_READ), role="driver") as command:
        _other(scene, _one(scene))
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: replaced while they are read")
def replaced_reading(scene: Scene) -> None:
    """An object is replaced while partitions of it are being read: both versions are never mixed."""
    name = _one(scene)
    with scene.at("read", role="worker", nth=scene.some(1, 24)) as command:
        scene.put(name, objects(2)[name])
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: an older run loads late")
def late(scene: Scene) -> None:
    """A run is held before its load; an object changes, a newer run loads it; the older one then must not undo that."""
    name = _one(scene)
    with scene.at("load", role="driver") as older:
        scene.put(name, objects(2)[name])
        scene.succeeds(scene.start())
    scene.end(older)
    scene.succeeds(scene.start())
