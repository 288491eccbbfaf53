"""The native backend on real checkpoints' folders: int8 on request, torch with a warning where nothing else goes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpuscore.scoring import load_scorer
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.kernels import build
from tests.scoring.bare_machine import score_on_bare_machine
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE

TEXTS = ["", "soup", *SAMPLE[:5], "the " * 100]

needs_kernel = pytest.mark.skipif(
    build.load_library("encoder.cpp") is None, reason=f"no native kernel: {build.why_missing('encoder.cpp')}"
)


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


@needs_kernel
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_passes_on_a_core_each_score_the_same(precision: str, checkpoint: Callable[[str], Path]) -> None:
    """Bit for bit, several of them at once; each is smaller, and a backend with one core has no others."""
    load = partial(load_scorer, str(checkpoint("bert")), device="cpu", precision=precision, max_tokens=MAX_POSITIONS)
    engine, alone = load(threads=3), load(threads=1)
    assert isinstance(engine, Engine)
    assert isinstance(alone, Engine)
    passes = engine.passes.on_cores()
    assert (passes.at_once, engine.passes.at_once) == (3, 1)
    assert passes.token_budget == engine.passes.token_budget // 3
    assert alone.passes.on_cores() is alone.passes
    tokens, failed = passes.tokens_of(TEXTS)
    assert not failed
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: passes.finish(tokens, passes.start(tokens))[0], range(9)))
    for rows_SL in found:
        np.testing.assert_array_equal(rows_SL, engine.score(TEXTS))


def test_without_a_compiler_torch_gives_the_same_scores(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The plain path is announced with its reason, int8 or not, and agrees with the kernel in fp32."""
    folder = checkpoint("bert")
    options: dict[str, Any] = {"device": "cpu", "max_tokens": MAX_POSITIONS}
    plain, said = score_on_bare_machine(folder, TEXTS, tmp_path, precision="int8", **options)
    assert "runs in torch on the CPU" in said
    assert "no C++ compiler" in said or "this CPU lacks" in said
    scores = load_scorer(str(folder), precision="fp32", **options).score(TEXTS)
    assert np.abs(plain - scores).max() < 1e-5
