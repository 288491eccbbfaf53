"""The exact path on the CPU in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from corpuscore.scoring import describe_scorer
from corpuscore.scoring.bert.torch_cpu import CpuBackend
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE


def test_out_of_memory_halves_the_pack(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's allocator for the CPU has no exception of its own; a pack that is too large is scored in halves."""
    folder = str(checkpoint("bert"))
    backend = CpuBackend(find_checkpoint(folder), describe_scorer(folder, device="cpu"), threads=None)
    engine = Engine(backend, max_tokens=MAX_POSITIONS, long_documents="truncate", token_budget=500)
    expected = engine.score(SAMPLE[:5])
    whole = torch.nn.Embedding.forward

    def large(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        if ids.numel() > 60:
            torch.empty(2**50)  # more than there is
        return whole(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", large)
    assert np.abs(engine.score(SAMPLE[:5]) - expected).max() < 1e-6
