"""Files of the work location that are damaged or go while a run goes on, or between two runs."""

from __future__ import annotations

import re

from tests.faults.case import case
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_S3 = Profile(store="s3")
_BETWEEN = (
    *((point, "run") for point in ("planned", "scored", "validated", "loaded")),
    *((point, "findings") for point in ("validated", "loaded")),
    ("validated", "checked"),
    ("loaded", "load"),
)


def damage(scene: Scene, pattern: str) -> str:
    """Damage one of the files whose keys match: a bit flipped, cut, empty, foreign, or gone; its key."""
    key = scene.random.choice([key for key in scene.work.listed() if re.search(pattern, key)])
    body = scene.work.get(key)
    how = scene.random.choice(("flipped", "cut", "empty", "foreign", "gone") if body else ("foreign", "gone"))
    if how == "gone":
        scene.work.delete(key)
        return key
    at = scene.random.randrange(len(body) or 1)
    flipped = body[:at] + bytes(byte ^ (1 << scene.random.randrange(8)) for byte in body[at : at + 1]) + body[at + 1 :]
    scene.work.put(key, {"flipped": flipped, "cut": body[:at], "empty": b"", "foreign": b'{"a": [1]}'}[how])
    return key


def _damaged_at(scene: Scene, point: str, pattern: str) -> None:
    """Hold the command at a point, damage a file, and see that it or the same command again ends well."""
    with scene.at(point, role="driver") as command:
        damage(scene, pattern)
    scene.finish(command, reruns=2)


@case("files: a receipt", short=1)
def receipt(scene: Scene) -> None:
    """A receipt is damaged while others are still being written, or between scoring and validation."""
    if scene.random.random() < 0.5:
        _damaged_at(scene, "scored", r"^receipts/")
        return
    command = scene.start()
    scene.reached(command, "receipted", scene.some(2, 18))
    damage(scene, r"^receipts/")
    scene.finish(command, reruns=2)


@case("files: a part")
def part(scene: Scene) -> None:
    """A part is damaged between scoring and validation, or between validation and load."""
    _damaged_at(scene, scene.random.choice(("scored", "load")), r"^parts/")


@case("files: what stages leave for each other")
def of_the_run(scene: Scene) -> None:
    """run.json, findings.json, checked.json or load.json is damaged before the next stage reads it."""
    point, name = scene.random.choice(_BETWEEN)
    _damaged_at(scene, point, rf"/{name}\.json$")


@case("files: the manifest")
def manifest(scene: Scene) -> None:
    """The list of partitions is damaged at any stage."""
    _damaged_at(scene, scene.random.choice(("planned", "scored", "validated", "loaded")), r"^manifests/")


@case("files: any, between two runs", short=1)
def any_between(scene: Scene) -> None:
    """One to five files of any kind are damaged when the run is over; the next one finds, or makes, what it needs."""
    scene.succeeds(scene.start())
    for _ in range(scene.some(1, 5)):
        damage(scene, r".")
    scene.finish(scene.start(), reruns=2)


@case("files: any, after a run that was cut short")
def any_after_kill(scene: Scene) -> None:
    """The command is killed at a stage, and one to five files of any kind are damaged before the next."""
    scene.strike(scene.random.choice(("scored", "validate", "load", "append")), role="driver")
    scene.killed(scene.start())
    for _ in range(scene.some(1, 5)):
        damage(scene, r".")
    scene.finish(scene.start(), reruns=2)


@case("files: any, on S3", profile=_S3)
def any_s3(scene: Scene) -> None:
    """The same in a bucket, at any stage of the run."""
    point = scene.random.choice(("planned", "scored", "validated", "loaded"))
    with scene.at(point, role="driver") as command:
        for _ in range(scene.some(1, 3)):
            damage(scene, r".")
    scene.finish(command, reruns=2)
