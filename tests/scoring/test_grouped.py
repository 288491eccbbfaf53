"""Groups of texts of equal length: any classifier of transformers, its passes under way, and memory that ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from corpuscore.scoring import describe_scorer, grouped, load_scorer
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.grouped import GroupedBackend
from corpuscore.scoring.scorer import Pipelined
from tests.scoring.checkpoints import LABELS, MAX_POSITIONS, SAMPLE
from tests.scoring.waiting import NUMBERLESS, Waiting

TEXTS = ["", "salt", *SAMPLE[:5], "the " * 90, *(f"{number} miles of storm" for number in range(30))]


def loaded(folder: Path) -> GroupedBackend:
    """The backend of a tiny checkpoint."""
    scorer = load_scorer(str(folder), device="cpu", backend="transformers", max_tokens=MAX_POSITIONS)
    assert isinstance(scorer, Engine)
    assert isinstance(scorer._backend, GroupedBackend)
    return scorer._backend


def test_out_of_memory_halves_the_pack(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of a group that is too large becomes the MemoryError that the engine halves packs on."""
    backend = loaded(checkpoint("albert"))
    engine = Engine(backend, max_tokens=MAX_POSITIONS, long_documents="truncate")
    expected = engine.score(TEXTS)
    whole = torch.nn.Embedding.forward

    def short(self: torch.nn.Embedding, ids_SN: torch.Tensor) -> torch.Tensor:
        if ids_SN.numel() > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, ids_SN)

    monkeypatch.setattr(torch.nn.Embedding, "forward", short)
    assert np.abs(engine.score(TEXTS) - expected).max() < 1e-6


def test_two_passes_may_be_under_way(checkpoint: Callable[[str], Path]) -> None:
    """Results are right in whichever order they are collected, whatever groups a pack was cut into."""
    backend = loaded(checkpoint("albert"))
    assert isinstance(backend, Pipelined)
    one, two = backend.tokenize(TEXTS[:9], MAX_POSITIONS), backend.tokenize(TEXTS[9:], MAX_POSITIONS)
    first, second = backend.submit(one), backend.submit(two)
    later, earlier = second(), first()
    np.testing.assert_array_equal(earlier, backend.forward(one))
    np.testing.assert_array_equal(later, backend.forward(two))


def test_a_pass_is_queued_without_waiting(checkpoint: Callable[[str], Path]) -> None:
    """One copy goes to the GPU for all groups, and nothing is asked back by us; transformers looks at each mask."""
    backend = loaded(checkpoint("albert"))
    tokens, slot = backend.tokenize(TEXTS, MAX_POSITIONS), backend._passes._slot()
    backend._device, backend._cells = NUMBERLESS, 200
    backend._rows = SimpleNamespace(logits=lambda ids_SN: ids_SN.float()[:, :1].expand(-1, len(LABELS)), end_token=None)  # type: ignore[assignment]
    with Waiting() as watch, torch.no_grad():
        rows_SL = backend._queue(tokens, slot)
    assert tuple(rows_SL.shape) == (len(TEXTS), len(LABELS))
    assert watch.copies == 1


@pytest.mark.parametrize("cells", [1, 100, 4_096])
def test_groups_change_nothing(cells: int, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One text a group, a few, or all of a length: the same scores in the same order."""
    expected = loaded(checkpoint("albert")).forward(loaded(checkpoint("albert")).tokenize(TEXTS, MAX_POSITIONS))
    monkeypatch.setitem(grouped.CELLS, "cpu", cells)
    backend = loaded(checkpoint("albert"))
    assert np.abs(backend.forward(backend.tokenize(TEXTS, MAX_POSITIONS)) - expected).max() < 1e-6


def test_a_small_gpu_gets_small_groups(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells follow the memory that is free once the model is there, up to where more are no faster."""
    path, cells = str(checkpoint("albert")), []
    info = describe_scorer(path, device="cpu", backend="transformers")
    model = loaded(Path(path))._model
    monkeypatch.setattr(grouped, "load_model", lambda *_: model)
    for free in (0, 2**24, 2**34):
        monkeypatch.setattr(grouped, "free_bytes", lambda _, free=free: free)
        cells.append(GroupedBackend(find_checkpoint(path), info, device="cuda", threads=None).token_budget)
    assert cells == [512, 4_096, 65_536]
