"""The GPU path's logic, run on the CPU: fixed shapes, two slots, precisions, and what happens when memory ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from corpuscore.errors import JobError
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.bert import cuda
from corpuscore.scoring.bert.fp8 import Fp8Linear, quantise, use_fp8
from corpuscore.scoring.bert.within import GroupedAttention
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Pipelined, Tokens
from tests.scoring.checkpoints import BIASED, FAMILIES, MAX_POSITIONS, SAMPLE
from tests.scoring.waiting import NUMBERLESS, Waiting

TEXTS = ["", "salt", *SAMPLE[:5], "the " * 90, SAMPLE[0], *(f"{number} miles of storm" for number in range(30))]


def on_cpu(folder: Path, precision: str = "fp32") -> cuda.CudaBackend:
    """The GPU backend without graphs and pinning."""
    info = replace(describe_scorer(str(folder), device="cpu"), precision=precision)
    return cuda.CudaBackend(find_checkpoint(str(folder)), info, device="cpu")


def scored(backend: cuda.CudaBackend, budget: int) -> np.ndarray:
    """TEXTS through the engine."""
    return Engine(backend, max_tokens=MAX_POSITIONS, long_documents="truncate", token_budget=budget).score(TEXTS)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "modernbert", "modernbert-mean"])
def test_fixed_shapes_give_the_same_scores(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Empty places, unused tails and other documents change nothing: the scores of the plain path, in few shapes."""
    backend = on_cpu(checkpoint(family))
    expected = load_scorer(str(checkpoint(family)), device="cpu", max_tokens=MAX_POSITIONS).score(TEXTS)
    assert isinstance(backend, Pipelined)
    for budget in (60, 700):
        assert np.abs(scored(backend, budget) - expected).max() < 1e-5
    assert len(backend._programs) <= 3


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.06), ("fp16", 0.02), ("fp8", 0.3)])
def test_lower_precisions_stay_near(precision: str, bound: float, checkpoint: Callable[[str], Path]) -> None:
    """Coarser numbers move the scores a little; bounds are wide, since random weights are ten times the usual size."""
    backend = on_cpu(checkpoint("bert"), precision)
    expected = load_scorer(str(checkpoint("bert")), device="cpu", max_tokens=MAX_POSITIONS).score(TEXTS)
    assert np.abs(scored(backend, 400) - expected).max() < bound


def test_two_passes_may_be_under_way(checkpoint: Callable[[str], Path]) -> None:
    """Results are right in whichever order they are collected, and a pass of its own between them harms neither."""
    backend = on_cpu(checkpoint("bert"))
    one, two = backend.tokenize(TEXTS[:4], MAX_POSITIONS), backend.tokenize(TEXTS[4:9], MAX_POSITIONS)
    first, second = backend.submit(one), backend.submit(two)
    backend.forward(backend.tokenize(TEXTS[9:], MAX_POSITIONS))
    later, earlier = second(), first()
    np.testing.assert_array_equal(earlier, backend.forward(one))
    np.testing.assert_array_equal(later, backend.forward(two))


def test_fp32_on_a_gpu_takes_the_exact_path(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the flash kernel cannot be used, documents of equal length are batched, and a warning says so."""
    backend = on_cpu(checkpoint("bert"))
    backend._within = cuda._choose_attention(backend._config, "fp32", "cuda")
    assert backend._within is None
    assert "without flash attention" in caplog.text
    expected = load_scorer(str(checkpoint("bert")), device="cpu", max_tokens=MAX_POSITIONS).score(TEXTS)
    assert np.abs(scored(backend, 700) - expected).max() < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_pass_is_queued_without_waiting(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Without graphs, too: one copy goes to the GPU, and no number is asked back before the result."""
    backend = on_cpu(checkpoint(family))
    tokens, slot = backend.tokenize(TEXTS, MAX_POSITIONS), backend._passes._slot()
    backend._device, backend._classifier = NUMBERLESS, backend._classifier.to(NUMBERLESS)
    with Waiting() as watch, torch.no_grad():
        rows_SL = backend._exact(tokens, slot)
    assert tuple(rows_SL.shape) == (len(TEXTS), len(backend.info.labels))
    assert watch.copies == 1


@pytest.mark.parametrize(("capability", "flash"), [((7, 5), False), ((8, 0), True)])
def test_flash_attention_needs_ampere(
    capability: tuple[int, int],
    flash: bool,
    checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An older GPU takes the exact path, and is told so."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    chosen = cuda._choose_attention(on_cpu(checkpoint("bert"))._config, "bf16", "cuda")
    assert chosen is (cuda.varlen_attention if flash else None)
    assert ("capability 8.0" in caplog.text) is not flash


def test_the_whole_pass_is_one_graph_for_all_shapes(checkpoint: Callable[[str], Path]) -> None:
    """torch.compile traces the pass without breaks, and once for packs of every shape."""
    backend, graphs = on_cpu(checkpoint("bert")), []

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    backend._forward = torch.compile(backend._classify, dynamic=True, fullgraph=True, backend=count)
    for lengths in ([5] * 10, [40] * 30, [9] * 900, [48]):
        offsets = np.cumsum([0, *lengths]).astype(np.int64)
        backend.forward(Tokens(np.full(offsets[-1], 7, np.int32), offsets))
    assert len(backend._programs) == 4
    assert len(graphs) == 1


def _no_kernel(*_: object) -> object:
    raise NotImplementedError("there is no such kernel on the CPU")


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *((family, "bf16") for family in FAMILIES if family not in BIASED),
        ("roberta", "fp8"),
        ("modernbert-mean", "fp8"),
    ],
)
def test_the_flash_kernel_does_not_break_the_graph(
    family: str, precision: str, checkpoint: Callable[[str], Path]
) -> None:
    """With variable-length attention, too, one graph serves every shape, windows and long documents included."""
    torch._dynamo.reset()  # it allows a function so many graphs in a process
    backend, graphs = on_cpu(checkpoint(family), precision), []
    backend._within = cuda.varlen_attention

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append([node for node in graph.graph.nodes if "varlen_attn" in str(node.target)])
        return _no_kernel

    backend._forward = torch.compile(backend._classify, dynamic=True, fullgraph=True, backend=count)
    for lengths in ([5] * 10, [40] * 30, [9] * 900):
        offsets = np.cumsum([0, *lengths]).astype(np.int64)
        with pytest.raises(NotImplementedError, match="no such kernel"):
            backend.forward(Tokens(np.full(offsets[-1], 7, np.int32), offsets))
    layers = {"albert-groups": 5, "albert-wide": 4}
    assert [len(nodes) for nodes in graphs] == [layers.get(family, 2)]


def test_masked_and_grouped_attention_agree() -> None:
    """The two references are one function, with and without a window."""
    lengths, generator = [7, 7, 3, 1, 12], torch.Generator().manual_seed(1)
    offsets = torch.tensor([0, 7, 14, 17, 18, 30, 30, 30], dtype=torch.int32)
    query, key, value = (torch.randn(1, 4, 30, 8, generator=generator) for _ in range(3))
    for window in (None, 4):
        grouped = GroupedAttention(lengths)(query, key, value, 0.3, window)
        masked = cuda.masked_attention(offsets, 16)(query, key, value, 0.3, window)
        torch.testing.assert_close(grouped, masked)


def test_fp8_linear_is_near_the_exact_one() -> None:
    """Rows and channels of very different sizes keep their own scale: within a few percent of the exact product."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 48).to(torch.bfloat16)
    rows = torch.randn(3, 5, 64, dtype=torch.bfloat16) * torch.logspace(-3, 3, 15).reshape(3, 5, 1).to(torch.bfloat16)
    exact, got = linear(rows), Fp8Linear(linear)(rows)
    assert got.shape == exact.shape
    error = (got - exact).float().norm(dim=-1) / exact.float().norm(dim=-1)
    assert error.max() < 0.06, f"largest relative error {error.max():.3f}"


def test_quantised_rows_come_back() -> None:
    """Value times scale is the row within the eighth that e4m3 resolves, zero rows included."""
    rows = torch.cat([torch.randn(6, 32) * 100, torch.zeros(1, 32)])
    values, scales = quantise(rows)
    assert torch.allclose(values.float() * scales, rows, rtol=1 / 14, atol=float(rows.abs().max()) / 400)


def test_fp8_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older GPU is refused before anything is replaced."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an older GPU")
    with pytest.raises(JobError, match="8.9 or higher"):
        use_fp8(nn.Sequential(nn.Linear(16, 16)), "cuda")
