"""Warehouses of files, whose commit is one swap: writers that end before, in and after it, and writers that meet."""

from __future__ import annotations

import signal

from tests.faults.case import case
from tests.faults.corpus import objects
from tests.faults.disks import small_disk
from tests.faults.places import FolderPlace
from tests.faults.profile import Profile
from tests.faults.scene import Scene
from tests.faults.tables import parquet_table

_PARQUET = Profile(warehouse="parquet")
_PARQUET_S3 = Profile(store="s3", warehouse="parquet")
_ICEBERG = Profile(warehouse="iceberg")

#: Where a load is, and how often a run comes by at the least.
_POINTS = {"append": 16, "appended": 16, "commit": 2, "committed": 1, "record": 1, "recorded": 1}


def _killed(scene: Scene, points: dict[str, int]) -> None:
    """SIGKILL in a first load or, as often, in one that replaces an object's rows; the same command does the rest."""
    if scene.random.random() < 0.5:
        scene.succeeds(scene.start())
        name = scene.random.choice(sorted(scene.objects))
        scene.put(name, objects(2)[name])
        points = dict.fromkeys(points, 1)
    point = scene.random.choice(sorted(points))
    scene.strike(point, role="driver", nth=scene.some(1, points[point]))
    ended = scene.killed(scene.start())
    assert ended.status == -signal.SIGKILL, f"it was not struck at {point}: {ended.tail}"
    scene.finish(reruns=0)


@case("lakes: killed in a load, Parquet", profile=_PARQUET, short=1)
def killed(scene: Scene) -> None:
    """The command gets SIGKILL while it writes files of rows, before, in or after the swap, or at the run's row."""
    _killed(scene, _POINTS)


@case("lakes: killed in a load, Iceberg", profile=_ICEBERG, limit=150)
def killed_iceberg(scene: Scene) -> None:
    """The same, and before or after the tables that follow the scores have followed."""
    _killed(scene, {**_POINTS, "follow": 1, "followed": 1, "commit": 1})


def _meet(scene: Scene) -> None:
    scene.others = True
    scene.two(**({"partition_rows": "10"} if scene.random.random() < 0.5 else {}))


@case("lakes: overlapping runs, Parquet", profile=_PARQUET)
def meet(scene: Scene) -> None:
    """Two runs into one table at the same time, over the same work or cut otherwise: each swap sees the one before."""
    _meet(scene)


@case("lakes: overlapping runs, Iceberg", profile=_ICEBERG, limit=150)
def meet_iceberg(scene: Scene) -> None:
    """The same into an Iceberg catalog."""
    _meet(scene)


@case("lakes: overlapping runs, one killed, Parquet", profile=_PARQUET)
def meet_killed(scene: Scene) -> None:
    """Two runs into one table at the same time, of which one gets SIGKILL while it loads."""
    scene.others = True
    point = scene.random.choice(("append", "appended", "commit"))
    scene.strike(point, role="driver", nth=scene.some(1, _POINTS[point]))
    first, second = scene.start(partition_rows="10"), scene.start()
    for command in (first, second):
        if scene.killed(command).status == -signal.SIGKILL:
            break
    else:
        raise AssertionError("none of them was struck")
    if command is first:
        scene.finish(second, reruns=2)
    scene.succeeds(scene.start())


@case("lakes: everything a little, Parquet on S3", profile=_PARQUET_S3, limit=150)
def everything(scene: Scene) -> None:
    """503, 500, resets, cut bodies, lost answers and latency, at three requests of a hundred each; the table, too."""
    for fault in ("503 SlowDown", "500", "reset", "truncated", "lost", "unsent"):
        scene.servers.proxy.rule(fault, probability=0.03, seed=scene.some(0, 10**6))
    scene.servers.proxy.rule("latency", probability=0.03, lasting=1.0, seed=scene.some(0, 10**6))
    scene.finish(scene.start(), reruns=1)


@case("lakes: a disk is full, Parquet", profile=_PARQUET)
def full(scene: Scene) -> None:
    """The disk of the table's folder, or of temporary files, has no room at some moment of the load; then it has."""
    disk = small_disk(scene, "lake-disk", 8_000)
    point = scene.random.choice(("append", "appended", "commit"))
    if scene.random.random() < 0.5:
        scene.lake = FolderPlace(disk.folder / "lake")
        scene.table = parquet_table(scene.lake)
    else:
        scene.tmp, point = disk.folder, "append"
    with scene.at(point, role="driver", nth=scene.some(1, _POINTS[point])) as command:
        disk.fill(leaving_kib=scene.some(0, 3) * 4)
    scene.fails(command, "space")
    disk.empty()
    scene.succeeds(scene.start())
