"""The path of SRU++ classifiers on a GPU, run on the CPU: passes under way, memory that ends, waiting for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Pipelined
from corpuscore.scoring.srupp import torch_path
from corpuscore.scoring.srupp.backend import CudaSruppBackend
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import Pooling, SRUppConfig
from corpuscore.scoring.srupp.torch_path import bytes_a_token
from tests.scoring.backends.test_srupp import TEXTS, folder
from tests.scoring.waiting import NUMBERLESS, Waiting


def on_cpu(path: Path, precision: str = "fp32") -> CudaSruppBackend:
    """The GPU backend of a small model."""
    info = replace(describe_scorer(str(path), device="cpu"), precision=precision)
    return CudaSruppBackend(find_checkpoint(str(path)), info, device="cpu")


def scored(backend: CudaSruppBackend, budget: int) -> np.ndarray:
    """TEXTS through the engine."""
    return Engine(backend, max_tokens=1_024, long_documents="truncate", token_budget=budget).score(TEXTS)


def test_out_of_memory_halves_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that the GPU does not hold is scored in halves; the text that does not fit alone is a row of NaN."""
    expected = load_scorer(str(folder(tmp_path)), device="cpu", max_tokens=1_024).score(TEXTS)
    whole = torch.nn.Embedding.forward

    def short(self: torch.nn.Embedding, ids_T: Tensor) -> Tensor:
        if len(ids_T) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, ids_T)

    monkeypatch.setattr(torch.nn.Embedding, "forward", short)
    got = scored(on_cpu(tmp_path), 2_000)
    fits = np.isfinite(got).all(axis=1)
    assert fits.sum() == len(TEXTS) - 1
    assert np.abs(got - expected)[fits].max() < 1e-5


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_scores_are_those_of_the_cpu(tmp_path: Path, precision: str, bound: float) -> None:
    """In whichever order and company, in packs of any size."""
    expected = load_scorer(str(folder(tmp_path)), device="cpu", max_tokens=1_024).score(TEXTS)
    backend = on_cpu(tmp_path, precision)
    assert isinstance(backend, Pipelined)
    for budget in (1, 70, 4_000):
        assert np.abs(scored(backend, budget) - expected).max() < bound


def test_two_passes_may_be_under_way(tmp_path: Path) -> None:
    """Results are right in whichever order they are collected, empty sequences among them."""
    backend = on_cpu(folder(tmp_path))
    one, two = backend.tokenize(TEXTS[:5], None), backend.tokenize(TEXTS[5:], None)
    first, second = backend.submit(one), backend.submit(two)
    later, earlier = second(), first()
    np.testing.assert_array_equal(earlier, backend.forward(one))
    np.testing.assert_array_equal(later, backend.forward(two))


def _shapes_only(u_TKC: Tensor, x_TC: Tensor | None, gates: Any, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence where there are no numbers."""
    return u_TKC[:, 0], u_TKC[:, 0]


@pytest.mark.parametrize("pooling", ["mean_max", "attention"])
def test_a_pass_is_queued_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: Pooling) -> None:
    """On a device without numbers, where asking for one is an error: one copy goes there, and nobody waits for it."""
    backend = on_cpu(folder(tmp_path))
    classifier = backend._classifier
    tokens = backend.tokenize(TEXTS, None)
    config = replace(classifier._network.config, pooling=pooling)
    monkeypatch.setattr("corpuscore.scoring.srupp.cell.recurrence", _shapes_only)
    classifier._network, classifier._device = SRUppClassifier(config).eval().to(NUMBERLESS), NUMBERLESS
    slot = classifier._passes._slot()
    with Waiting() as watch, torch.no_grad():
        rows_SL = classifier._queue(tokens, slot)
    assert tuple(rows_SL.shape) == (len(TEXTS), len(backend.info.labels))
    assert watch.copies == 1


def most_bytes(run: Callable[[], object]) -> int:
    """How much memory of torch's lived at once, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(max(accumulate(change for _, change in changes)))


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 60}, {"proj_size": 96}, {"embedding_size": 96}])
def test_the_budget_counts_what_a_pass_takes(sizes: dict[str, int]) -> None:
    """In fp32, which is what the CPU computes in: never more for a token than is counted, and more than half of it."""
    shape = {"vocab_size": 20, "labels": ("joy",), "embedding_size": 16, "hidden_size": 24, "proj_size": 12}
    config = SRUppConfig(**{**shape, **sizes})  # type: ignore[arg-type]
    network, count = SRUppClassifier(config).eval(), 20_000
    ids_T, offsets = torch.full((count,), 7), torch.arange(0, count + 1, 40)
    with torch.no_grad():
        taken = most_bytes(lambda: network(ids_T, offsets)) / count
    assert bytes_a_token(config, 4) / 2 < taken < bytes_a_token(config, 4)


def test_the_budget_follows_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small GPU, or one that is half full, gets smaller packs; a large one no larger than pay."""
    backend, budgets = on_cpu(folder(tmp_path)), []
    for free in (0, 2**26, 2**28, 2**40):
        monkeypatch.setattr(torch_path, "free_bytes", lambda _, free=free: free)
        budgets.append(backend.token_budget)
    assert budgets == sorted(set(budgets))
    assert (budgets[0], budgets[-1]) == (512, 262_144)
