"""The training loop: one for every model, resumable at any step, the same bits whether it was interrupted or not.

What a step does depends on the seed, the step and the state before it alone: batches are drawn from (seed, epoch),
dropout from (seed, step). So a checkpoint holds no generator states, and a run that is resumed repeats nothing and
skips nothing. On a CPU the bits also depend on torch's number of threads, by which sums are split: a run keeps the
number that it began with, whatever the machine or the process that resumes it would take.

Shape suffixes: D documents.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from corpuscore.errors import TrainingError
from corpuscore.training.batches import Rows, draw_batches
from corpuscore.training.checkpoints import load_checkpoint, save_checkpoint

#: Steps between two updates of the averaged weights; each reads every parameter.
_AVERAGE_EVERY = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how fast.

    Attributes:
        epochs: Times that every document is seen.
        batch_tokens: Tokens of a step.
        learning_rate: At its peak; it rises over `warmup` steps and falls as a cosine to a fiftieth.
        embedding_rate: Learning rate of sparse embeddings, as a share of the other.
        weight_decay: Of matrices; vectors and embeddings have none.
        warmup: Steps.
        averaging: Decay, a step, of the weights' exponential mean, which is what is kept; 0 keeps the last weights.
        clip: Norm that a step's gradient may have.
        save_every: Steps between two checkpoints; the end of an epoch has one as well.
        seed: Of everything that is drawn.
    """

    epochs: int = 10
    batch_tokens: int = 2048
    learning_rate: float = 2e-3
    embedding_rate: float = 0.5
    weight_decay: float = 0.05
    warmup: int = 200
    averaging: float = 0.998
    clip: float = 5.0
    save_every: int = 500
    seed: int = 1


class Task(Protocol):
    """What is trained: a module, its documents and its loss."""

    module: nn.Module
    lengths_D: Rows
    padded: bool

    def loss(self, documents: Rows) -> Tensor:
        """Mean loss of some documents, on the module as it is; torch's generator is seeded for the step."""
        ...

    def measure(self, module: nn.Module) -> Mapping[str, float]:
        """Metrics on held-out documents; `score` is what decides which epoch is kept, more is better."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: the end of a step, or of an epoch where `metrics` is not empty."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metrics: Mapping[str, float]


Progress = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        best: Metrics of the epoch whose weights were kept.
        history: Metrics of every epoch, with its last loss.
    """

    best: Mapping[str, float]
    history: list[dict[str, float]]


def train(task: Task, settings: Settings, folder: Path, progress: Progress) -> Outcome:
    """Train to the end, from the newest checkpoint in the folder where there is one.

    Args:
        task: Its module is left with the weights of the best epoch.
        settings: As when the run was started.
        folder: Of checkpoints.
        progress: Called after each step and each epoch.

    Raises:
        TrainingError: Nothing to train on; or the loss is not a number; the last good checkpoint stays.
    """
    threads = torch.get_num_threads()
    try:
        run = _Run(task, settings, folder, progress)
        run.resume()
        for epoch in range(run.step // run.steps_an_epoch, settings.epochs):
            run.epoch(epoch)
        return run.finish()
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The state between two steps."""

    def __init__(self, task: Task, settings: Settings, folder: Path, progress: Progress) -> None:
        self.task, self.settings, self.folder, self.progress = task, settings, folder, progress
        self.average = copy.deepcopy(task.module).eval().requires_grad_(False)
        self.optimizers = list(_optimizers(task.module, settings))
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        # Batches differ from epoch to epoch in number; the schedule needs one number, so each epoch is cut to the same.
        draws = (len(self._draw(epoch)) for epoch in range(settings.epochs))
        self.steps_an_epoch = min(draws, default=0)
        if not self.steps_an_epoch:
            raise TrainingError(
                "There is nothing to train on",
                rule="a run needs documents and epochs",
                next_step="check the texts and --epochs",
            )
        self.steps = self.steps_an_epoch * settings.epochs
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []

    def _draw(self, epoch: int) -> list[Rows]:
        budget, seed = self.settings.batch_tokens, self.settings.seed
        return draw_batches(self.task.lengths_D, budget, padded=self.task.padded, seed=seed, epoch=epoch)

    def resume(self) -> None:
        """Take over the newest checkpoint, and the number of threads that it was made with."""
        state = load_checkpoint(self.folder)
        if state is None:
            return
        torch.set_num_threads(state["threads"])
        self.step, self.best, self.history = state["step"], state["best"], state["history"]
        self.task.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        """Write a checkpoint of this step."""
        state = {
            "step": self.step,
            "threads": torch.get_num_threads(),
            "best": self.best,
            "history": self.history,
            "module": self.task.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_checkpoint(state, self.folder, self.step)

    def epoch(self, epoch: int) -> None:
        """The rest of an epoch, its metrics and its checkpoint."""
        batches = self._draw(epoch)[: self.steps_an_epoch]
        loss = math.nan
        for documents in batches[self.step - epoch * self.steps_an_epoch :]:
            loss = self._advance(documents)
            self._report(epoch, loss, {})
            if self.step % self.settings.save_every == 0 and self.step % self.steps_an_epoch:
                self.save()
        kept = self.average if self.settings.averaging else self.task.module
        metrics = {"epoch": epoch + 1.0, "loss": loss, **self.task.measure(kept)}
        self.history.append(metrics)
        if metrics["score"] >= self.best.get("metrics", {}).get("score", -math.inf):
            weights = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
            self.best = {"metrics": metrics, "weights": weights}
        self.save()
        self._report(epoch, loss, metrics)

    def _report(self, epoch: int, loss: float, metrics: Mapping[str, float]) -> None:
        self.progress(Event(epoch + 1, self.settings.epochs, self.step, self.steps, loss, metrics))

    def _advance(self, documents: Rows) -> float:
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self._set_rates()
        self.task.module.train()
        loss = self.task.loss(documents)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss of step {self.step} is {value}",
                rule="a loss is a finite number",
                next_step=f"try a smaller --lr in another folder; the last good checkpoint is in {self.folder}",
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        dense = [
            parameter
            for parameter in self.task.module.parameters()
            if parameter.grad is not None and not parameter.grad.is_sparse
        ]
        nn.utils.clip_grad_norm_(dense, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._average()
        return value

    def _set_rates(self) -> None:
        share = rate_at(self.step, self.steps, self.settings.warmup)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share

    @torch.no_grad()
    def _average(self) -> None:
        if not self.settings.averaging or self.step % _AVERAGE_EVERY:
            return
        decay = min(self.settings.averaging**_AVERAGE_EVERY, self.step / (self.step + 10 * _AVERAGE_EVERY))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.task.module.parameters()), 1 - decay)

    def finish(self) -> Outcome:
        """Leave the best weights in the task's module."""
        self.task.module.load_state_dict(self.best["weights"])
        return Outcome(self.best["metrics"], self.history)


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate: a straight line up over `warmup` steps, then half a cosine down to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _optimizers(module: nn.Module, settings: Settings) -> Iterator[Optimizer]:
    """AdamW for all but sparse embeddings, for which only rows that a step has seen are touched."""
    sparse = [part.weight for part in module.modules() if isinstance(part, nn.Embedding) and part.sparse]
    ours = {id(weight) for weight in sparse}
    dense = [parameter for parameter in module.parameters() if parameter.requires_grad and id(parameter) not in ours]
    groups = [
        {"params": [parameter for parameter in dense if parameter.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in dense if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    yield torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    if sparse:
        yield torch.optim.SparseAdam(sparse, lr=settings.learning_rate * settings.embedding_rate, betas=(0.9, 0.98))
