"""The cores of a benchmark, and what is said of them."""

from __future__ import annotations

import os

from corpuscore.benchmark.report import processor_name
from corpuscore.scoring.kernels.levels import of_cpu


def hold(cores: int) -> list[int]:
    """Keep this process, and all that it starts, on so many cores; which these are."""
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, chosen)
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(len(chosen))
    return chosen


def described(cores: list[int]) -> str:
    """The processor in a line."""
    return f"{processor_name('cpu')}, {', '.join(of_cpu())}; cores {', '.join(map(str, cores))}"
