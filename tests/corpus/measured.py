"""`python -m tests.corpus.measured FILE OPTIONS`: read an object in a process of its own, and say what that took.

Peak memory is counted from where a small object had been read, so that imports and thread pools don't count.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpuscore.corpus import DocumentReader, list_objects, split
from corpuscore.errors import CorpuscoreError
from corpuscore.options import ReadOptions
from infra.stack.home import CHECKOUT


@dataclass(frozen=True)
class Measured:
    """What reading an object came to.

    Attributes:
        reasons: How many documents have which reason; those that can be scored have none.
        error: The message of the error of our own that ended it, where one did.
        peak_mib: Memory at its peak, beyond what the process had before.
        seconds: From the plan to the last batch.
    """

    reasons: dict[str | None, int]
    error: str
    peak_mib: float
    seconds: float


def measured(path: Path, **reading: Any) -> Measured:
    """Plan and read an object in a child process.

    Raises:
        CalledProcessError: It crashed, or raised what is none of ours.
    """
    command = [sys.executable, "-m", "tests.corpus.measured", str(path), json.dumps(reading)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    reasons = {reason or None: count for reason, count in found["reasons"].items()}
    return Measured(reasons, found["error"], found["peak_mib"], found["seconds"])


def _main(path: str, options: dict[str, Any]) -> None:
    reading = ReadOptions(**{**options, "keep_columns": tuple(options.get("keep_columns", ()))})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "warm.jsonl").write_bytes(b'{"text": "a"}\n')
        _read(str(Path(folder, "warm.jsonl")), ReadOptions())
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before, started = _memory("VmRSS"), time.perf_counter()
    reasons, error = _read(path, reading)
    seconds, peak = time.perf_counter() - started, _memory("VmHWM") - before
    print(json.dumps({"reasons": reasons, "error": error, "peak_mib": peak / 1024, "seconds": seconds}))


def _read(path: str, reading: ReadOptions) -> tuple[dict[str, int], str]:
    reasons: Counter[str] = Counter()
    try:
        for partition in split(list_objects([path]), 10_000, reading):
            with DocumentReader(partition, reading) as reader:
                for batch in reader:
                    reasons.update(reason or "" for reason in batch.column("reason").to_pylist())
    except CorpuscoreError as error:
        return reasons, str(error)
    return reasons, ""


def _memory(line: str) -> int:
    """Kilobytes; the peak of the resource module would count the parent's, too."""
    (found,) = re.findall(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found)


if __name__ == "__main__":
    _main(sys.argv[1], json.loads(sys.argv[2]))
