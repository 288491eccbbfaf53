"""Disks that are full or may only be read."""

from __future__ import annotations

from tests.faults.case import case
from tests.faults.disks import small_disk
from tests.faults.places import FolderPlace
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_LOCAL = Profile(cluster="local")
_POINTS = ("planned", "scored", "validated", "loaded")


@case("disks: the work folder is full")
def work_full(scene: Scene) -> None:
    """The disk of the work location has no room left, between stages or while workers write; then it has."""
    disk = small_disk(scene, "work-disk", 8_000)
    scene.work = FolderPlace(disk.folder / "work")
    point = scene.random.choice(("part", "part", *_POINTS))
    nth = scene.some(1, 16) if point == "part" else 1
    with scene.at(point, nth=nth) as command:
        disk.fill(leaving_kib=scene.some(0, 3) * 4)
    ended = scene.end(command)
    assert not ended.error or "space" in ended.error.lower(), ended.error
    disk.empty()
    scene.succeeds(scene.start())


@case("disks: the work folder may only be read")
def work_read_only(scene: Scene) -> None:
    """The disk of the work location is mounted for reading only while workers write to it."""
    disk = small_disk(scene, "work-disk", 8_000)
    scene.work = FolderPlace(disk.folder / "work")
    rule_id = scene.rule("receipt", "hold", role="worker", nth=scene.some(1, 20))
    command = scene.start()
    with scene.held(command, rule_id):
        disk.allow_writing(False)
    scene.fails(command, "read-only")
    disk.allow_writing(True)
    scene.succeeds(scene.start())


@case("disks: TMPDIR is full", profile=_LOCAL)
def tmp_full(scene: Scene) -> None:
    """The disk of temporary files has no room for a part; then it has."""
    disk = small_disk(scene, "tmp-disk", 4_000)
    scene.tmp = disk.folder
    rule_id = scene.rule("read", "hold", role="worker", nth=scene.some(3, 16))
    command = scene.start()
    with scene.held(command, rule_id):
        disk.fill(leaving_kib=0)
    scene.fails(command, "space")
    disk.empty()
    scene.succeeds(scene.start())


@case("disks: TMPDIR may only be read", profile=_LOCAL, seeds=3)
def tmp_read_only(scene: Scene) -> None:
    """The disk of temporary files may only be read: another place for them is found, or one clear message."""
    disk = small_disk(scene, "tmp-disk", 4_000)
    scene.tmp = disk.folder
    disk.allow_writing(False)
    scene.end(scene.start())
    disk.allow_writing(True)
    scene.succeeds(scene.start())
