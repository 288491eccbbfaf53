"""What must hold after a run, whatever struck it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.faults.command import Fault
from tests.faults.corpus import Objects
from tests.faults.places import FolderPlace
from tests.faults.processes import end, marked
from tests.faults.scene import Scene
from tests.faults.tables import Rows

_GRACE_SECONDS = 10.0
_TWO_DAYS = 2 * 86_400
_NEXT = "from corpuscore.files import scratch_folder\nwith scratch_folder(): pass"


@dataclass
class Reference:
    """What undisturbed runs make of each text.

    Attributes:
        scores: Text -> scores, status and tokens.
        rejects: Text -> status and reason.
    """

    scores: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    rejects: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def add(self, objects: Objects, scores: Rows, rejects: Rows) -> None:
        """Take over what a run over these objects has left."""
        texts = {item.id: item.text for items in objects.values() for item in items}
        self.scores |= {texts[row[0]]: row[1:] for row in scores}
        self.rejects |= {texts[row[0]]: row[1:] for row in rejects}

    def expected(self, objects: Objects) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]:
        """Scores and rejects of a corpus, by document."""
        documents = [item for items in objects.values() for item in items]
        scores = {item.id: self.scores[item.text] for item in documents if item.text in self.scores}
        return scores, {item.id: self.rejects[item.text] for item in documents if item.text in self.rejects}


@dataclass(frozen=True, slots=True)
class Found:
    """What is wrong after a run.

    Attributes:
        lost, doubled: Documents.
        wrong: In words: the first of each kind.
    """

    lost: int
    doubled: int
    wrong: list[str]


def examine(scene: Scene, reference: Reference) -> Found:
    """Look at tables, books, processes and files of a run whose last command ended well."""
    left = list(_left_running(scene))
    scores, rejects = scene.table.scores(), scene.table.rejects()
    expected_scores, expected_rejects = reference.expected(scene.objects)
    counts = Counter(row[0] for row in (*scores, *rejects))
    wanted = expected_scores.keys() | expected_rejects.keys() | scene.poisoned.keys()
    wrong = [
        *left,
        *_differences("scores", scores, expected_scores, scene.poisoned),
        *_differences("rejects", rejects, expected_rejects, scene.poisoned),
        *_poison(rejects, scene.poisoned),
        *_books(scene, len(scores), len(rejects)),
        *_files(scene),
    ]
    doubled = sum(count - 1 for count in counts.values() if count > 1) + len(counts.keys() - wanted)
    return Found(len(wanted - counts.keys()), doubled, wrong)


def _differences(
    what: str, rows: Rows, expected: dict[str, tuple[Any, ...]], poisoned: dict[str, str]
) -> Iterator[str]:
    differing = [row for row in rows if row[0] not in poisoned and expected.get(row[0]) != row[1:]]
    if differing:
        first = differing[0]
        yield f"{len(differing)} {what} are not those of an undisturbed run: {first} for {expected.get(first[0])}"
    missing = expected.keys() - {row[0] for row in rows} - poisoned.keys()
    if missing:
        yield f"{len(missing)} {what} are missing, such as {min(missing)}"


def _poison(rejects: Rows, poisoned: dict[str, str]) -> Iterator[str]:
    found = {row[0]: row[2] for row in rejects if row[0] in poisoned}
    if found != poisoned:
        yield f"documents that end a process were to be rejected as {poisoned}, and are {found}"


def _books(scene: Scene, scored: int, rejected: int) -> Iterator[str]:
    report = scene.ended[-1].report
    told = {name: report[name] for name in ("rows", "scored", "rejected", "rows_in_table", "rejects_in_table")}
    held = {"rows": scored + rejected, "scored": scored, "rejected": rejected}
    if not scene.others and told != {**held, "rows_in_table": scored, "rejects_in_table": rejected}:
        yield f"the report says {told}, the tables hold {held}"
    if scene.table.ledger() != (scored, rejected):
        yield f"the ledger knows of {scene.table.ledger()}, the tables hold {(scored, rejected)}"
    if report["run_id"] not in scene.table.runs():
        yield f"run {report['run_id']} is not among the runs {scene.table.runs()}"


def _left_running(scene: Scene) -> Iterator[str]:
    until = time.monotonic() + _GRACE_SECONDS
    while any(marked(scene.mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for what in end(scene.mark):
        yield f"left running: {what}"


def _files(scene: Scene) -> Iterator[str]:
    yield from _temporary(scene.tmp)
    if scene.cluster:
        yield from _temporary(scene.cluster.tmp)
    keys = scene.work.listed()
    if drafts := [key for key in keys if _is_draft(key)]:
        if isinstance(scene.work, FolderPlace):
            yield from _swept(scene, drafts, "drafts")
        else:
            yield f"drafts in the work location: {drafts[:3]}"
    named = _named(scene, keys)
    orphans = [key for key in keys if key.startswith("parts/") and key not in named and not _is_draft(key)]
    if orphans and isinstance(scene.work, FolderPlace) and not scene.others:
        yield from _swept(scene, orphans, "orphans")


def _temporary(folder: Path) -> Iterator[str]:
    """What a process that was killed has left in TMPDIR and the next one there, a minute later, does not clear away."""
    left = [path for path in folder.iterdir() if path.name.startswith("corpuscore-")]
    for path in left:
        os.utime(path, (time.time() - _TWO_DAYS,) * 2)
    if left:
        subprocess.run([sys.executable, "-c", _NEXT], env={**os.environ, "TMPDIR": str(folder)}, check=True)
    if stays := sorted(path.name for path in folder.iterdir() if not path.name.startswith("dask-")):
        yield f"left in TMPDIR: {stays[:5]}"


def _is_draft(key: str) -> bool:
    return key.rpartition("/")[2].startswith(".")


def _named(scene: Scene, keys: Iterable[str]) -> set[str]:
    """Parts that receipts name.

    Raises:
        Fault: One cannot be read, although the run has ended well.
    """
    receipts = [key for key in keys if key.startswith("receipts/") and not _is_draft(key)]
    try:
        return {orjson.loads(scene.work.get(key))["part"] for key in receipts}
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"a damaged receipt was left: {error!r}") from error


def _swept(scene: Scene, keys: list[str], what: str) -> Iterator[str]:
    """Make files two days old, let a report sweep, and see that they are gone and that nothing else is."""
    from corpuscore import stages

    folder = Path(scene.work.uri)
    others = [key for key in scene.work.listed() if key.startswith(("parts/", "receipts/")) and key not in keys]
    for key in keys:
        os.utime(folder / key, (time.time() - _TWO_DAYS,) * 2)
    try:
        stages.report(scene.ended[-1].report["run"], warehouse=scene.table.url)
    except Exception as error:
        raise Fault(f"the sweep failed: {error!r}") from error
    if left := [key for key in keys if (folder / key).exists()]:
        yield f"{what} that no report sweeps: {left[:3]}"
    if gone := [key for key in others if not (folder / key).exists()]:
        yield f"the sweep took {gone[:3]}"
