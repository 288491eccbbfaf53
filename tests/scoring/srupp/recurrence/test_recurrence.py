import logging
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from corpuscore.scoring.kernels import build
from corpuscore.scoring.srupp.recurrence import choice, gates, native

SHAPES = {
    "one narrow direction": {"lengths": [3, 1, 7], "hidden": 5},
    "two directions over a block": {"lengths": [4, 30, 9], "hidden": 70, "directions": 2},
    "whole vectors": {"lengths": [20, 3], "hidden": 32, "directions": 2},
    "an empty document": {"lengths": [0, 5, 0], "hidden": 16, "directions": 2},
    "no tokens at all": {"lengths": [0, 0], "hidden": 4, "start": True},
    "fourth matrix": {"lengths": [3, 20], "hidden": 17, "directions": 2, "matrices": 4},
    "no skip": {"lengths": [6], "hidden": 8, "skip": False},
    "first state and dropout": {"lengths": [2, 5, 1], "hidden": 20, "directions": 2, "start": True, "keep": True},
}


def draw(
    lengths: list[int],
    hidden: int,
    directions: int = 1,
    matrices: int = 3,
    skip: bool = True,
    start: bool = False,
    keep: bool = False,
) -> tuple[list[Tensor | None], Tensor, int]:
    """Random tensors in the order u, x, weight, bias, start, keep; the offsets; the directions."""
    generator = torch.Generator().manual_seed(len(lengths) + hidden)
    channels, offsets = hidden * directions, torch.tensor([0, *lengths]).cumsum(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens, documents = int(offsets[-1]), len(lengths)
    tensors = [
        normal(tokens, matrices, channels),
        normal(tokens, channels) if skip and matrices == 3 else None,
        normal(2 * channels),
        normal(2 * channels),
        normal(documents, channels) if start else None,
        (normal(documents, channels) > 0).float() * 2 if keep else None,
    ]
    return tensors, offsets, directions


def outputs_and_gradients(path: gates.Recurrence, drawn: tuple[list[Tensor | None], Tensor, int]) -> dict[str, Tensor]:
    """h, the last state, and the gradient of a fixed function of both for every input."""
    tensors, offsets, directions = drawn
    u, x, weight, bias, start, keep = (None if t is None else t.clone().requires_grad_() for t in tensors)
    assert u is not None
    assert weight is not None
    assert bias is not None
    keep_mask = None if keep is None else keep.detach()
    h, last = path(u, x, gates.Gates(weight, bias, directions, 1.7, start, keep_mask), offsets)
    ((h * torch.linspace(-1, 1, h.numel()).view_as(h)).sum() + (last * last).sum()).backward()  # type: ignore[no-untyped-call]
    named = {"u": u, "x": x, "weight": weight, "bias": bias, "start": start}
    gradients = {
        f"d{name}": torch.zeros_like(t) if t.grad is None else t.grad for name, t in named.items() if t is not None
    }
    return {"h": h.detach(), "last": last.detach(), **gradients}


@pytest.mark.usefixtures("kernel_level")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", [gates.stepwise, native.recurrence], ids=["stepwise", "native"])
def test_every_path_does_what_the_specification_does(path: gates.Recurrence, shape: str) -> None:
    """Outputs, states and all gradients agree with the plain loops."""
    if path is native.recurrence and (reason := native.missing()):
        pytest.skip(reason)
    drawn = draw(**SHAPES[shape])  # type: ignore[arg-type]
    expected, got = (outputs_and_gradients(each, drawn) for each in (gates.reference, path))
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        difference = (tensor - got[name]).abs().max().item() if tensor.numel() else 0.0
        assert difference < 2e-5, f"{name} differs by {difference:.1e}"


@pytest.fixture(scope="module")
def triton_path() -> Iterator[gates.Recurrence]:
    """The GPU's kernels: on a GPU where there is one, else in triton's interpreter."""
    if not find_spec("triton"):
        pytest.skip("triton is not installed; it comes with torch's CUDA builds")
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setenv("TRITON_INTERPRET", "1")
        from corpuscore.scoring.srupp.recurrence import triton_path

        yield triton_path.recurrence


@pytest.mark.parametrize("shape", ["one narrow direction", "fourth matrix", "no skip", "first state and dropout"])
def test_the_gpu_kernels_do_what_the_specification_does(triton_path: gates.Recurrence, shape: str) -> None:
    """Outputs, states and all gradients agree with the plain loops."""
    tensors, offsets, directions = draw(**SHAPES[shape])  # type: ignore[arg-type]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = ([None if t is None else t.to(device) for t in tensors], offsets, directions)
    expected = outputs_and_gradients(gates.reference, (tensors, offsets, directions))
    for name, tensor in outputs_and_gradients(triton_path, moved).items():
        difference = (expected[name] - tensor.cpu()).abs().max().item() if tensor.numel() else 0.0
        assert difference < 2e-5, f"{name} differs by {difference:.1e}"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gpu_kernels_take_half_precision(triton_path: gates.Recurrence, dtype: torch.dtype) -> None:
    """States and arithmetic stay fp32: the output is the rounded one of rounded inputs."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    tensors, offsets, directions = draw([40, 3, 17], 48, 2)
    half = [None if t is None else t.to("cuda", dtype) for t in tensors]
    full = [None if t is None else t.float() for t in half]
    expected = outputs_and_gradients(triton_path, (full, offsets, directions))
    for name, tensor in outputs_and_gradients(triton_path, (half, offsets, directions)).items():
        torch.testing.assert_close(
            tensor.float(), expected[name], rtol=0.02, atol=0.02, msg=partial("{}: {}".format, name)
        )


@pytest.mark.usefixtures("kernel_level")
def test_a_document_alone_gives_the_bits_that_it_gives_in_a_batch() -> None:
    """The native path: no neighbour and no number of threads changes a bit."""
    if reason := native.missing():
        pytest.skip(reason)
    (u, x, weight, bias, *_), offsets, directions = draw([5, 40, 1, 17], 48, 2)
    assert u is not None
    assert x is not None
    layer = gates.Gates(weight, bias, directions)  # type: ignore[arg-type]
    together, _ = choice.recurrence(u, x, layer, offsets)
    for first, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        alone, _ = choice.recurrence(u[first:stop], x[first:stop], layer, torch.tensor([0, stop - first]))
        assert torch.equal(alone, together[first:stop])


@pytest.mark.usefixtures("kernel_level")
def test_extreme_gates_saturate_and_nan_stays_nan() -> None:
    """Inputs of 1e4 close or open a gate; a NaN reaches the output of its own document only."""
    (u, x, weight, bias, *_), offsets, _ = draw([4, 4], 16)
    assert u is not None
    u[:4] *= 1e4
    u[6, 1, 3] = float("nan")
    h, last = choice.recurrence(u, x, gates.Gates(weight, bias), offsets)  # type: ignore[arg-type]
    assert h[:4].isfinite().all()
    assert last[1, 3].isnan()
    assert h.isnan().sum() == 2


def test_a_missing_fast_path_is_announced_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a compiler the loop in torch runs, and one warning says so."""
    monkeypatch.setattr(build, "why_missing", lambda _: "no compiler")
    monkeypatch.setattr(build, "load_library", lambda _: None)
    choice._path.cache_clear()
    (u, x, weight, bias, *_), offsets, _ = draw([3], 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            choice.recurrence(u, x, gates.Gates(weight, bias), offsets)  # type: ignore[arg-type]
    choice._path.cache_clear()
    assert [record.message for record in caplog.records] == [
        "SRU recurrence: no fast path on cpu (no compiler); a loop over time runs, much slower."
    ]
