"""`python -m tests.fuzz TARGET [--seconds N] [--runs N] [--inputs FOLDER]`: coverage-guided fuzzing with atheris.

Python code of corpuscore is instrumented; native code that it calls (Arrow, orjson, tokenizers, safetensors) is not,
so that it is reached by chance and by the seeds alone. What is found is written beside the inputs, as crash-...
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["corpuscore"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS, Target

MOST_SECONDS_A_RUN = 60
MOST_MEGABYTES = 3_000
MOST_BYTES = 20_000


def fuzz(target: Target, inputs: Path, seconds: int, runs: int) -> None:
    """Run one target until it fails, or until its runs or its time are over; the process ends then."""
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (inputs / f"seed-{number}").write_bytes(seed)
    limits = {"max_total_time": seconds, "runs": runs, "timeout": MOST_SECONDS_A_RUN, "rss_limit_mb": MOST_MEGABYTES}
    flags = {**limits, "max_len": MOST_BYTES, "artifact_prefix": f"{inputs}/", "print_final_stats": 1}
    atheris.Setup(["fuzz", *(f"-{name}={value}" for name, value in flags.items()), str(inputs)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fuzz one target.")
    parser.add_argument("target", choices=TARGETS, nargs="?")
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--inputs", type=Path)
    given = parser.parse_args()
    if given.list or not given.target:
        print(*TARGETS, sep="\n")
        raise SystemExit
    folder = given.inputs or Path(tempfile.mkdtemp(prefix=f"fuzz-{given.target}-"))
    fuzz(TARGETS[given.target], folder, given.seconds, given.runs)
