"""The table of RELIABILITY.md, from the lines that runs have left."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.case import ALL

_HEAD = (
    "| case | seeds | survived | lost | doubled | seconds | undisturbed | what happens |",
    "|---|--:|--:|--:|--:|--:|--:|---|",
)


def table(lines: Path) -> str:
    """A row for each case: of a run that was made twice the later line counts.

    Args:
        lines: What `--out` wrote.
    """
    runs = _latest(lines)
    rows = [_row(name, list(runs[name].values())) for name in sorted(ALL) if name in runs]
    return "\n".join((*_HEAD, *rows, _sum(runs)))


def survivors(lines: Path) -> set[tuple[str, int]]:
    """(case, seed) of the runs of such a file whose latest line says that they survived."""
    return {
        (case, seed)
        for case, seeds in _latest(lines).items()
        for seed, run in seeds.items()
        if run["outcome"] == "survived"
    }


def _latest(lines: Path) -> dict[str, dict[int, dict[str, Any]]]:
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines.read_text().splitlines():
        run = json.loads(line)
        runs.setdefault(run["case"], {})[run["seed"]] = run
    return runs


def _row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    lost, doubled = (sum(run[what] for run in runs) for what in ("lost", "doubled"))
    median = statistics.median(run["seconds"] for run in runs)
    undisturbed = statistics.median(run["undisturbed"] for run in runs)
    figures = f"{len(runs)} | {_survived(runs)} | {lost} | {doubled} | {median:.0f} | {undisturbed:.0f}"
    return f"| {name} | {figures} | {ALL[name].does} |"


def _survived(runs: Sequence[dict[str, Any]]) -> int:
    return sum(run["outcome"] == "survived" for run in runs)


def _sum(runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    every = [run for seeds in runs.values() for run in seeds.values()]
    lost, doubled = (sum(run[what] for run in every) for what in ("lost", "doubled"))
    return f"| **{len(runs)} cases** | **{len(every)}** | **{_survived(every)}** | **{lost}** | **{doubled}** | | | |"
