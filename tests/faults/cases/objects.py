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


@case("objects: deleted before they are read", short=1)
def deleted(scene: Scene) -> None:
    """An object goes between the listing and its reading: an error that names it; the same command then goes on."""
    name = _one(scene)
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        scene.remove(name)
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: replaced before they are read", short=2)
def replaced(scene: Scene) -> None:
    """An object is replaced between the listing and its reading: an error that names it, never a mixture."""
    name = _one(scene)
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        scene.put(name, objects(2)[name])
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: replaced while they are read")
def replaced_reading(scene: Scene) -> None:
    """An object is replaced while partitions of it are being read: both versions are never mixed."""
    name = _one(scene)
    with scene.at("read", role="worker", nth=scene.some(1, 24)) as command:
        scene.put(name, objects(2)[name])
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: appended before they are read")
def appended(scene: Scene) -> None:
    """An object grows between the listing and its reading."""
    name = scene.random.choice(sorted(name for name in scene.objects if not name.endswith(".parquet")))
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        more = [Document(f"{item.id}+", item.text) for item in objects()[name][:7]]
        scene.put(name, [*scene.objects[name], *more])
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: renamed before they are read")
def renamed(scene: Scene) -> None:
    """An object is renamed between the listing and its reading."""
    name = _one(scene)
    folder, slash, base = name.rpartition("/")
    with scene.at(scene.random.choice(_BEFORE_READ), role="driver") as command:
        documents = scene.objects[name]
        scene.remove(name)
        scene.put(f"{folder}{slash}other-{base}", documents)
    scene.fails(command, name)
    scene.succeeds(scene.start())


@case("objects: replaced between score and load")
def replaced_late(scene: Scene) -> None:
    """An object is replaced when it has been scored: it is loaded as planned, and the next run supersedes it."""
    name = _one(scene)
    with scene.at(scene.random.choice(_AFTER_READ), role="driver") as command:
        scene.put(name, objects(2)[name])
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: deleted between score and load", short=3)
def deleted_late(scene: Scene) -> None:
    """An object goes when it has been scored: it is named, and with --departed remove the next run takes its rows."""
    scene.arguments["departed"] = "remove"
    name = _one(scene)
    with scene.at(scene.random.choice(_AFTER_READ), role="driver") as command:
        scene.remove(name)
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: renamed between score and load")
def renamed_late(scene: Scene) -> None:
    """An object is renamed when it has been scored: with --departed remove its documents are there once at the end."""
    scene.arguments["departed"] = "remove"
    name = _one(scene)
    folder, slash, base = name.rpartition("/")
    with scene.at(scene.random.choice(_AFTER_READ), role="driver") as command:
        documents = scene.objects[name]
        scene.remove(name)
        scene.put(f"{folder}{slash}other-{base}", documents)
    scene.end(command)
    scene.succeeds(scene.start())


@case("objects: an older run loads late")
def late(scene: Scene) -> None:
    """A run is held before its load; an object changes, a newer run loads it; the older one then must not undo that."""
    name = _one(scene)
    scene.arguments["warehouse"] = scene.table.url
    with scene.at("load", role="driver") as older:
        scene.put(name, objects(2)[name])
        scene.succeeds(scene.start())
    scene.end(older)
    scene.succeeds(scene.start())
