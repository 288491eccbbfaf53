"""On a real GPU: the same answers as on the CPU, whatever the company, with graphs, streams and low precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from corpuscore.scoring import load_scorer
from corpuscore.scoring.accelerator import FLASH_VARIABLE
from corpuscore.scoring.scorer import Scorer
from tests.scoring.backends.test_srupp import folder as small_srupp
from tests.scoring.checkpoints import FAMILIES, MAX_POSITIONS, SAMPLE, write_checkpoint
from tests.scoring.tiny import write_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TEXTS = ["", "salt", "the " * 90, *SAMPLE[:5], *(f"{number} miles of storm" for number in range(400))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> a tiny checkpoint with weights of the usual size, so that bf16 can be held to its bound."""

    def write(family: str) -> Path:
        path = tmp_path_factory.mktemp(family)
        return write_checkpoint(path, family, initializer_range=0.1)

    return write


def on(device: str, folder: Path, precision: str) -> Scorer:
    """A scorer with the window of the tiny checkpoints."""
    return load_scorer(str(folder), device=device, precision=precision, max_tokens=MAX_POSITIONS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 5e-3), ("fp16", 5e-3)])
def test_the_gpu_agrees_with_the_cpu(family: str, precision: str, bound: float, folder: Callable[[str], Path]) -> None:
    """Probabilities within 1e-5 in fp32 and 5e-3 in bf16 and fp16."""
    path = folder(family)
    expected = on("cpu", path, "fp32").score(TEXTS)
    got = on("cuda", path, precision).score(TEXTS)
    assert np.abs(got - expected).max() < bound


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_company_changes_nothing(precision: str, folder: Callable[[str], Path]) -> None:
    """Alone, together and backwards: within what the order of sums in a product of another shape can do."""
    scorer = on("cuda", folder("roberta"), precision)
    together, backwards = scorer.score(TEXTS), scorer.score(TEXTS[::-1])[::-1]
    alone = np.concatenate([scorer.score([text]) for text in TEXTS[:12]])
    bound = 1e-6 if precision == "fp32" else 5e-3
    assert np.abs(together - backwards).max() < bound
    assert np.abs(together[:12] - alone).max() < bound


@pytest.mark.parametrize("flash", ["1", "0"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 3e-2), ("fp16", 5e-3)])
def test_an_srupp_model_agrees_with_the_cpu(
    precision: str, bound: float, flash: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flash kernel and, as on a GPU before Ampere, without it."""
    monkeypatch.setenv(FLASH_VARIABLE, flash)
    path = small_srupp(tmp_path)
    assert np.abs(on("cuda", path, precision).score(TEXTS) - on("cpu", path, "fp32").score(TEXTS)).max() < bound


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 5e-3)])
def test_groups_agree_with_the_cpu(precision: str, bound: float, tmp_path: Path) -> None:
    """Any classifier of transformers, in groups of equal length."""
    path = write_tiny(tmp_path, "ernie")
    assert np.abs(on("cuda", path, precision).score(TEXTS) - on("cpu", path, "fp32").score(TEXTS)).max() < bound


@pytest.mark.parametrize("family", ["bert", "ernie", "srupp"])
def test_memory_that_ends_is_no_end(family: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    """With a share of the memory that one pack does not fit into, packs are halved, and the scores are the same."""
    made = {"srupp": small_srupp, "ernie": lambda folder: write_tiny(folder, "ernie")}
    path = made[family](tmp_path) if family in made else folder(family)
    scorer = on("cuda", path, "fp32")
    many = [f"{number} miles of storm and soup " * 4 for number in range(20_000)]
    expected = scorer.score(many[:500])
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_allocated() + 2**25) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        got = scorer.score(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.abs(got[:500] - expected).max() < 1e-5
    assert np.isfinite(got).all()


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="needs FP8 products"
)
def test_fp8_stays_near(folder: Callable[[str], Path]) -> None:
    """FP8 products move probabilities by little."""
    path = folder("bert")
    gap = np.abs(on("cuda", path, "fp8").score(TEXTS) - on("cpu", path, "fp32").score(TEXTS))
    assert np.percentile(gap, 99.9) < 0.03


def test_a_stream_does_not_leak(folder: Callable[[str], Path]) -> None:
    """After the first thousands of texts, more of them take no more memory on the device."""
    scorer = on("cuda", folder("bert"), "bf16")
    batches = [[f"{start + number} miles of storm" for number in range(1_000)] for start in range(0, 40_000, 1_000)]
    used = [torch.cuda.memory_allocated() for _ in scorer.stream(batches)]
    assert used[-1] <= used[len(used) // 2]
