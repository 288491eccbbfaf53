"""Runs cases: one lane is a set of servers, in which runs follow each other."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Self

import duckdb

from infra.stack.home import CHECKOUT
from tests.faults.case import Case
from tests.faults.checks import Reference, examine
from tests.faults.command import Fault
from tests.faults.control import Missed
from tests.faults.corpus import encode, objects
from tests.faults.processes import end
from tests.faults.profile import Profile
from tests.faults.scene import Scene
from tests.faults.servers import Servers

#: Of an undisturbed run on a machine that has nothing else to do: what the limits of cases are meant for.
_USUAL_SECONDS = 10.0

Result = Literal["survived", "lost", "doubled", "error"]


@cache
def _revision() -> str:
    """The checkout's commit; empty where git knows none."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    return asked.stdout.strip()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    Attributes:
        case, seed: Which.
        outcome: survived: all that must hold does.
        lost, doubled: Documents.
        seconds: From the first command's start to the last one's end.
        undisturbed: Seconds of a run on the same profile without a fault.
        message: What was found.
        revision: Commit that was played.
    """

    case: str
    seed: int
    outcome: Result
    lost: int
    doubled: int
    seconds: float
    undisturbed: float
    message: str = ""
    revision: str = field(default_factory=_revision)

    def to_json(self) -> dict[str, object]:
        """A JSON-ready dict."""
        return asdict(self)


class Lane:
    """Runs one case after the other on the same servers.

    Args:
        folder: For all its files.
        keep: Files of runs that did not survive.
    """

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._keep = keep
        self._servers = Servers(folder / "servers")
        self._reference: Reference | None = None
        self._undisturbed: dict[Profile, float] = {}
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._servers.__exit__(*error)

    def run(self, case: Case, seed: int) -> Outcome:
        """Run a case with a seed; where even an undisturbed run takes long, its limits are longer as well."""
        try:
            slower = max(1.0, self._undisturbed_seconds(case.profile) / _USUAL_SECONDS)
        except RuntimeError as error:
            return Outcome(case.name, seed, "error", 0, 0, 0.0, 0.0, str(error))
        return self.play(case.name, case.play, case.profile, seed, case.limit * slower, hurts=case.hurts)

    def run_short(self, case: Case, seed: int) -> Outcome:
        """The same for a machine that may be busy, without a look at how fast it is."""
        self._known()
        return self.play(case.name, case.play, case.profile, seed, case.limit * 3, hurts=case.hurts)

    def play(
        self,
        name: str,
        play: Callable[[Scene], None],
        profile: Profile,
        seed: int,
        limit: float,
        *,
        hurts: bool = False,
    ) -> Outcome:
        """Run something on a scene of its own, and examine what it leaves."""
        undisturbed = self._undisturbed.get(profile, 0.0)
        scene = self._scene(profile, seed, limit)
        began = time.monotonic()
        lost, doubled, wrong = 0, 0, list[str]()
        try:
            play(scene)
        except (Fault, Missed) as error:
            wrong.append(str(error))
        except Exception as error:  # a case that cannot be played; the others go on
            wrong.append(f"the case broke: {error!r}")
        seconds = time.monotonic() - began
        try:
            if not scene.ended or scene.ended[-1].status:
                wrong.append("no command ended well at last")
            else:
                found = examine(scene, self._known())
                lost, doubled, wrong = found.lost, found.doubled, [*wrong, *found.wrong]
        except Exception as error:
            wrong.append(f"the run cannot be examined: {error!r}")
        self._tidy(scene, bad=bool(lost or doubled or wrong), hurts=hurts)
        result = _result(lost, doubled, wrong)
        message = " | ".join(wrong)
        return Outcome(name, seed, result, lost, doubled, round(seconds, 2), round(undisturbed, 2), message)

    def spoiled(self, statements: Sequence[str]) -> list[Result]:
        """What is made of the table of an undisturbed run when it is spoiled by each of some statements."""
        known, scene = self._known(), self._scene(Profile(), 0, 300.0)
        scene.finish(reruns=0)
        path = Path(scene.table.url.removeprefix("duckdb:///"))
        whole, results = path.read_bytes(), list[Result]()
        for statement in statements:
            path.write_bytes(whole)
            with duckdb.connect(path) as connection:
                connection.execute(statement)
            found = examine(scene, known)
            results.append(_result(found.lost, found.doubled, found.wrong))
        self._tidy(scene, bad=False, hurts=False)
        return results

    def _scene(self, profile: Profile, seed: int, limit: float) -> Scene:
        self._runs += 1
        scene = Scene(self._servers, profile, self._folder / f"{self._runs:04}", seed, limit)
        if scene.cluster:
            scene.cluster.start()
        return scene

    def _tidy(self, scene: Scene, *, bad: bool, hurts: bool) -> None:
        scene.close()
        end(scene.mark)
        self._servers.heal()
        if (bad or hurts) and scene.cluster:
            scene.cluster.end()
            for left in scene.cluster.tmp.glob("corpuscore-*"):
                shutil.rmtree(left, ignore_errors=True)
        if not (bad and self._keep):
            shutil.rmtree(scene.folder, ignore_errors=True)

    def _known(self) -> Reference:
        """What undisturbed runs make of both versions of the corpus."""
        if self._reference is None:
            self._reference = Reference()
            for version in (1, 2):
                scene = self._scene(Profile(), 0, 120.0)
                for name, documents in objects(version).items():
                    scene.objects[name] = documents
                    scene.corpus.put(name, encode(name, documents))
                scene.finish(reruns=0)
                self._reference.add(scene.objects, scene.table.scores(), scene.table.rejects())
                self._tidy(scene, bad=False, hurts=False)
        return self._reference

    def _undisturbed_seconds(self, profile: Profile) -> float:
        """How long a run takes on a profile when nothing happens; measured once, and examined like any other."""
        self._known()
        if profile not in self._undisturbed:
            done = self.play("nothing happens", lambda scene: _nothing(scene), profile, 0, 300.0)
            if done.outcome != "survived":
                raise RuntimeError(f"an undisturbed run on {profile}: {done.message}")
            self._undisturbed[profile] = done.seconds
        return self._undisturbed[profile]


def _result(lost: int, doubled: int, wrong: Sequence[str]) -> Result:
    return "lost" if lost else "doubled" if doubled else "error" if wrong else "survived"


def _nothing(scene: Scene) -> None:
    if scene.profile.front == "airflow":
        scene.trigger().finish()
    else:
        scene.finish(reruns=0)
