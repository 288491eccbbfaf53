"""The suite's side of inside/sitecustomize.py: rules for the processes of a run, and what they have passed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

INSIDE = Path(__file__).parent / "inside"


class Missed(Exception):
    """A run did not come to where a fault was to strike it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a point.

    Attributes:
        point: Its name.
        do: `hold`, or the name of a signal that the process sends to itself.
        nth: At which passage, counted over all processes; the first is 1.
        times: At so many passages from there on.
        role: Only in a `worker`, a `driver` or a child that scores `alone`; empty: in any.
        after: Seconds between passage and deed, the process going on meanwhile.
    """

    point: str
    do: str
    nth: int = 1
    times: int = 1
    role: str = ""
    after: float = 0.0
    id: str = ""


@dataclass
class Control:
    """The folder that rules and passages go through; one for a lane, emptied before each run.

    Attributes:
        folder: It.
        pace: Seconds that each passage of a point takes longer.
    """

    folder: Path
    pace: dict[str, float] = field(default_factory=dict)
    _rules: list[Rule] = field(default_factory=list)

    def clear(self) -> None:
        """Forget rules and passages."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rules.json").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if not path.name.startswith("stacks-"):
                path.unlink()
        self._rules, self.pace = [], {}

    def add(self, rule: Rule) -> str:
        """Let a rule hold from now on; its id."""
        named = Rule(**{**asdict(rule), "id": f"r{len(self._rules)}"})
        self._rules.append(named)
        self.write()
        return named.id

    def write(self) -> None:
        """Make rules and pace known to the processes."""
        draft = self.folder / "rules.draft"
        draft.write_text(json.dumps({"rules": [asdict(rule) for rule in self._rules], "pace": self.pace}))
        draft.replace(self.folder / "rules.json")

    def wait_held(self, rule_id: str, going_on: Callable[[], bool], seconds: float = 60.0) -> int:
        """Wait until a process is held by a rule; its pid.

        Raises:
            Missed: The run is over, or the time is.
        """
        held = self.folder / f"held-{rule_id}"
        until = time.monotonic() + seconds
        while not (held.exists() and held.read_text()):
            if not going_on() or time.monotonic() > until:
                raise Missed(f"nothing was held: the run passed {self.passed() or 'no point'}")
            time.sleep(0.01)
        return int(held.read_text())

    def release(self, rule_id: str) -> None:
        """Let a held process go on."""
        (self.folder / f"go-{rule_id}").touch()

    def struck(self) -> list[int]:
        """Processes that sent themselves a signal."""
        return [int(path.name.split("-")[2]) for path in self.folder.glob("struck-*")]

    def passed(self, point: str = "", role: str = "") -> dict[str, int]:
        """How often each point (or this one) was passed by processes of a role (or of any)."""
        counts: dict[str, int] = {}
        passages = self.folder / "passages"
        for line in passages.read_text().splitlines() if passages.exists() else []:
            name, who, *_ = line.split(" ")
            if (not point or point == name) and (not role or role == who):
                counts[name] = counts.get(name, 0) + 1
        return counts

    def stacks(self) -> str:
        """What processes wrote of their stacks when they were asked by SIGUSR1: the innermost calls first."""
        found = []
        for path in sorted(self.folder.glob("stacks-*")):
            text = path.read_text(errors="replace")
            if text:
                found.append(f"--- process {path.name.removeprefix('stacks-')}\n{text}")
        return "\n".join(found)
