"""`python -m tests.faults`: runs cases outside of pytest, or prints the table of what was seen.

python -m tests.faults --list
python -m tests.faults --case 'workers: killed while reading' --seeds 1..10
python -m tests.faults --seeds 1..10 --lanes 2 --out tests/faults/seen.jsonl     (goes on where it ended)
python -m tests.faults --table tests/faults/seen.jsonl
python -m tests.faults --soak 30
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.case import ALL, Case
from tests.faults.cases import load_cases
from tests.faults.runner import Lane, Outcome
from tests.faults.soak import soak
from tests.faults.table import survivors, table


def main() -> int:
    """Exit status 0 where every run survived, 1 where one did not."""
    said = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the servers of a lane end with it
    load_cases()
    if said.list:
        for case in ALL.values():
            print(f"{case.name}: {case.does}")
        return 0
    if said.table:
        print(table(said.table))
        return 0
    folder = Path(said.folder or tempfile.mkdtemp(prefix="faults-"))
    if said.soak:
        seed = said.seed if said.seed is not None else random.SystemRandom().randrange(10**6)
        return soak(folder, seed, said.soak * 60.0)
    return _lead(said, folder) if said.lanes > 1 else _run(said, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Cases of faults, see RELIABILITY.md.")
    parser.add_argument("--case", action="append", default=[], help="name of a case, or the beginning of names")
    parser.add_argument("--seeds", default="1..1", help="such as 3 or 1..10; a case may take fewer of a series")
    parser.add_argument("--lanes", type=int, default=1, help="runs side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument(
        "--out",
        type=Path,
        help="file to which a line of JSON for each run is added; what survived in it is not played again",
    )
    parser.add_argument("--folder", help="for the files of runs; those of runs that did not survive are kept in it")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--table", type=Path, help="print the table of RELIABILITY.md from such lines")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="random faults for so long")
    parser.add_argument("--seed", type=int, help="of a soak; a random one is printed")
    parser.add_argument("--lane", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _chosen(said: argparse.Namespace) -> Iterator[tuple[Case, int]]:
    first, _, last = said.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    cases = [case for case in ALL.values() if not said.case or case.name.startswith(tuple(said.case))]
    for at, seed in enumerate(seeds):  # seed by seed, so that a run that is cut short has seen every case
        for case in sorted(cases, key=lambda case: -case.limit):  # slow ones first, so that no lane is left with one
            if at < case.seeds:
                yield case, seed


def _run(said: argparse.Namespace, folder: Path) -> int:
    failed = 0
    until = time.monotonic() + said.minutes * 60
    print(f"seeds {said.seeds}, files of runs in {folder}", flush=True)
    seen = survivors(said.out) if said.out and said.out.exists() else set()
    with Lane(folder / f"lane-{os.getpid()}", keep=bool(said.folder)) as lane:
        for case, seed in _chosen(said):
            if time.monotonic() > until:
                break
            if (case.name, seed) in seen:
                continue
            if said.claims and (_is_elsewhere(said, case) or not _claim(said.claims, case, seed)):
                continue
            outcome = lane.run(case, seed)
            failed += outcome.outcome != "survived"
            _tell(outcome, said.out)
    return 1 if failed else 0


def _is_elsewhere(said: argparse.Namespace, case: Case) -> bool:
    """Whether another lane has the servers for it: one Airflow is enough."""
    return case.profile.front == "airflow" and bool(said.lane)


def _claim(claims: Path, case: Case, seed: int) -> bool:
    """Whether this lane is the first to take a run."""
    try:
        (claims / f"{case.name.replace('/', '|')} {seed}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _tell(outcome: Outcome, out: Path | None) -> None:
    when = time.strftime("%H:%M:%S")
    print(
        f"{when} {outcome.outcome:<9}{outcome.seconds:6.1f} s  {outcome.case} [{outcome.seed}] {outcome.message}",
        flush=True,
    )
    if out:
        with out.open("a") as lines:
            lines.write(json.dumps(outcome.to_json()) + "\n")


def _lead(said: argparse.Namespace, folder: Path) -> int:
    """Start lanes, which share the work by claiming runs."""
    claims = folder / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    more = ["--seeds", said.seeds, "--minutes", str(said.minutes), "--folder", str(folder), "--claims", str(claims)]
    more += [item for name in said.case for item in ("--case", name)]
    more += ["--out", str(said.out)] if said.out else []
    lanes = [
        subprocess.Popen([sys.executable, "-m", "tests.faults", *more, "--lane", str(lane)])
        for lane in range(said.lanes)
    ]
    try:
        return max(lane.wait() for lane in lanes)
    finally:
        for lane in lanes:
            lane.terminate()


if __name__ == "__main__":
    sys.exit(main())
