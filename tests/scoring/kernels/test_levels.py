"""What the levels of instruction sets have in common, and what happens where threads run out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from corpuscore.scoring import load_scorer
from corpuscore.scoring.kernels import build, levels
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE

TEXTS = ["soup", *SAMPLE, "the " * 60]

needs_compiler = pytest.mark.skipif(build._compiler() is None, reason="no C++ compiler on the PATH")


def scores_at(level: str, model: str, monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """Scores of the texts with the kernels held to a level."""
    monkeypatch.setenv("CORPUSCORE_CPU", level)
    build._load.cache_clear()
    return load_scorer(model, device="cpu", precision="fp32", max_tokens=MAX_POSITIONS).score(TEXTS)


@needs_compiler
@pytest.mark.parametrize("model", ["bundled", "bert"])
def test_levels_with_multiply_add_give_the_same_bits(
    model: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX-512 and AVX2 may share one table; the plain level rounds once more and differs in the last bits."""
    name = model if model == "bundled" else str(checkpoint(model))
    found = {level: scores_at(level, name, monkeypatch) for level in levels.usable()}
    build._load.cache_clear()
    plain = found.pop("plain")
    for level, scores in found.items():
        np.testing.assert_array_equal(scores, next(iter(found.values())), err_msg=level)
        np.testing.assert_allclose(scores, plain, atol=5e-6)


_FEW_THREADS = """
import resource, sys
import numpy as np
from corpuscore.scoring import load_scorer
scorer = load_scorer(sys.argv[1], device="cpu", precision="fp32", max_tokens=40, threads=512)
texts = [f"{word} storm soup passed" for word in range(4000)]
first = scorer.score(texts)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
print(np.array_equal(scorer.score(texts), first))
"""


@needs_compiler
@pytest.mark.parametrize("model", ["bundled", "bert"])
def test_more_threads_than_there_are_to_be_had(model: str, checkpoint: Callable[[str], Path]) -> None:
    """The kernel runs with those that start, and the process lives."""
    name = model if model == "bundled" else str(checkpoint(model))
    done = subprocess.run([sys.executable, "-c", _FEW_THREADS, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
