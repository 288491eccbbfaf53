"""The native backend on real checkpoints' folders: int8 on request, torch with a warning where nothing else goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring import load_scorer
from pipeline.scoring.nn import native
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE

TEXTS = ["", "soup", *SAMPLE[:5], "the " * 100]

needs_kernel = pytest.mark.skipif(
    native.load_library("cpu_encoder.cpp") is None, reason=f"no native kernel: {native.why_missing('cpu_encoder.cpp')}"
)


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a compiler and without anything built."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._load.cache_clear()
    yield
    native._load.cache_clear()


@needs_kernel
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_int8_scores_are_near_those_of_fp32(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Whatever the gate decides, no probability moves by much; and a text scores the same alone."""
    exact, fast = (
        load_scorer(str(checkpoint(family)), device="cpu", precision=precision, max_tokens=MAX_POSITIONS)
        for precision in ("fp32", "int8")
    )
    scores = fast.score(TEXTS)
    assert np.abs(scores - exact.score(TEXTS)).max() < 0.03
    np.testing.assert_array_equal(scores[3:4], fast.score(TEXTS[3:4]))


def test_without_a_compiler_torch_gives_the_same_scores(
    no_compiler: None, checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The plain path is announced with its reason, int8 or not, and is right."""
    folder = str(checkpoint("bert"))
    with caplog.at_level(logging.WARNING):
        plain = load_scorer(folder, device="cpu", precision="int8", max_tokens=MAX_POSITIONS).score(TEXTS)
    assert "runs in torch on the CPU" in caplog.text
    assert "no C++ compiler" in caplog.text
    native._load.cache_clear()
    scores = load_scorer(folder, device="cpu", precision="fp32", max_tokens=MAX_POSITIONS).score(TEXTS)
    assert np.abs(plain - scores).max() < 1e-5
