from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from corpuscore.errors import TrainingError
from corpuscore.training.batches import Rows, draw_batches
from corpuscore.training.checkpoints import load_checkpoint, save_checkpoint
from corpuscore.training.loop import Event, Settings, rate_at, train

PACE = Settings(epochs=4, batch_tokens=40, learning_rate=0.05, warmup=2, averaging=0.9, save_every=3)


class Bags:
    """A task of a second: bags of words, some weights sparse, with dropout; the loss may turn to NaN at a step."""

    padded = False

    def __init__(self, poisoned_step: int = -1) -> None:
        torch.manual_seed(0)
        chance = np.random.default_rng(0)
        self.lengths_D: Rows = chance.integers(1, 12, 60)
        self.words = [torch.from_numpy(chance.integers(0, 30, length)) for length in self.lengths_D]
        self.module: nn.Module = nn.Sequential(nn.Embedding(30, 4, sparse=True), nn.Dropout(0.3), nn.Linear(4, 1))
        self.poisoned_step, self.calls = poisoned_step, 0

    def loss(self, documents: Rows) -> Tensor:
        self.calls += 1
        found = torch.stack([self.module(self.words[d]).mean() - len(self.words[d]) / 10 for d in documents])
        return found.square().mean() * (float("nan") if self.calls == self.poisoned_step else 1.0)

    def measure(self, module: nn.Module) -> Mapping[str, float]:
        weights = torch.cat([parameter.flatten() for parameter in module.parameters()])
        return {"score": weights.sum().item()}


class StopHereError(Exception):
    """Raised by a progress callback: an interruption at a known step."""


def _until(step: int) -> object:
    def progress(event: Event) -> None:
        if event.step == step:
            raise StopHereError

    return progress


@pytest.mark.parametrize("stop", [1, 4, 9, 17])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, stop: int) -> None:
    """Weights, optimizers, averages and the choice of the epoch come out the same wherever a run was interrupted."""
    whole = Bags()
    expected = train(whole, PACE, tmp_path / "whole", lambda _: None)
    with pytest.raises(StopHereError):
        train(Bags(), PACE, tmp_path / "cut", _until(stop))  # type: ignore[arg-type]
    resumed = Bags()
    found = train(resumed, PACE, tmp_path / "cut", lambda _: None)
    assert found == expected
    for ours, theirs in zip(resumed.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Threads(Bags):
    """Notes the threads of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def loss(self, documents: Rows) -> Tensor:
        self.seen.add(torch.get_num_threads())
        return super().loss(documents)


def test_a_resumed_run_has_the_threads_that_it_began_with(tmp_path: Path) -> None:
    """Sums are split by threads: another process, or another machine, goes on with the number of the first one."""
    with pytest.raises(StopHereError):
        train(Threads(), PACE, tmp_path, _until(4))  # type: ignore[arg-type]
    torch.set_num_threads(3)
    resumed = Threads()
    train(resumed, PACE, tmp_path, lambda _: None)
    assert resumed.seen == {1}
    assert torch.get_num_threads() == 3


def test_the_same_seed_gives_the_same_model_and_another_does_not(tmp_path: Path) -> None:
    """A run depends on its seed and nothing else."""
    first, second, other = Bags(), Bags(), Bags()
    train(first, PACE, tmp_path / "1", lambda _: None)
    train(second, PACE, tmp_path / "2", lambda _: None)
    train(other, Settings(4, 40, 0.05, warmup=2, averaging=0.9, seed=2), tmp_path / "3", lambda _: None)
    assert torch.equal(first.module[2].weight, second.module[2].weight)  # type: ignore[index]
    assert not torch.equal(first.module[2].weight, other.module[2].weight)  # type: ignore[index]


def test_a_nan_loss_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The error names step and rule; the checkpoint before it still loads, all of it finite."""
    with pytest.raises(TrainingError, match="loss of step 7 is nan"):
        train(Bags(poisoned_step=8), PACE, tmp_path, lambda _: None)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert 0 < state["step"] <= 7
    assert all(torch.isfinite(tensor).all() for tensor in state["module"].values())


def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """A process that saves in a loop is killed; what it leaves is the newest or the one before, whole."""
    script = """
        import sys, torch
        from pathlib import Path
        from corpuscore.training.checkpoints import save_checkpoint
        for step in range(1, 100_000):
            save_checkpoint({"step": step, "weights": torch.full((200_000,), float(step))}, Path(sys.argv[1]), step)
            print(step, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(25)][-1]
        process.kill()
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] >= seen
    assert (state["weights"] == state["step"]).all()


def test_what_killed_writers_left_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    """A run that is killed often does not fill the disk with drafts."""
    script = """
        import os, sys
        from pathlib import Path
        from corpuscore.files import placed
        with placed(Path(sys.argv[1]) / "step-000000007.pt") as draft:
            draft.write_bytes(b"half")
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    kept = save_checkpoint({"step": 8}, tmp_path, 8)
    assert list(tmp_path.iterdir()) == [kept]


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    """Nothing of where a checkpoint was written is in it."""
    first, second = (save_checkpoint({"step": 8}, tmp_path / name, 8) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_broken_checkpoint_is_passed_over_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A truncated newest file costs a few steps, not the run; only two files are kept."""
    for step in (1, 2, 3):
        newest = save_checkpoint({"step": step}, tmp_path, step)
    newest.write_bytes(newest.read_bytes()[:50])
    state = load_checkpoint(tmp_path)
    assert state == {"step": 2}
    assert "cannot be read" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    """No documents, or no epochs."""
    task = Bags()
    task.lengths_D = task.lengths_D[:0]
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(task, PACE, tmp_path, lambda _: None)
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(Bags(), Settings(epochs=0), tmp_path, lambda _: None)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 100), st.booleans(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_document_is_drawn_once_and_budgets_hold(
    lengths: list[int], budget: int, padded: bool, epoch: int
) -> None:
    """Batches cover all documents, and only a document that is too long alone is over the budget."""
    lengths_D = np.array(lengths)
    batches = draw_batches(lengths_D, budget, padded=padded, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        tokens = lengths_D[batch].max() * len(batch) if padded else lengths_D[batch].sum()
        assert tokens <= budget or len(batch) == 1


def test_the_rate_rises_to_one_and_falls_to_a_fiftieth() -> None:
    """Warm-up, peak and end of the schedule."""
    rates = [rate_at(step, 1000, 100) for step in range(1000)]
    assert max(rates) == 1.0 == rates[99]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)
    assert rates[99:] == sorted(rates[99:], reverse=True)
