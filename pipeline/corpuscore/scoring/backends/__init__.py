"""Backends, found by name: a new model family is one new file in this folder, and no other edit.

A backend module keeps the contract below at its top level. Importing it must be cheap: torch and whatever else is
heavy is imported inside `load` (by a module in a room beside this folder), because plans are made in images without
torch.

    FALLBACK    False; True for a path that takes nearly everything and is slower, so that `auto` asks it last
    PRECISIONS  device -> precisions that it can do there; the first is what `auto` means on that device
    accepts     whether a config.json is of its kind
    check       raises for what would stop such a checkpoint later; asked at plan, without torch
    arithmetic  what it would compute with on this machine, which may be less than what was asked for
    max_tokens  the longest sequence that a config.json has room for
    load        the weights, as a Backend (see scorer.py)

A checkpoint is a folder with config.json (`model_type`, `architectures`, `id2label`, `problem_type`), weights in
safetensors and tokenizer.json; `Checkpoint` has checked that they are there and `ScorerInfo` is filled before `load`
is called, by the one function that `describe_scorer` uses too. `Checkpoint.tokenizer()` gives the ready tokenizer.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

from corpuscore.errors import JobError, ModelError
from corpuscore.records import ScorerInfo
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Arithmetic, Backend


class BackendModule(Protocol):
    """What a file in this folder offers."""

    FALLBACK: bool
    PRECISIONS: Mapping[str, tuple[str, ...]]

    def accepts(self, config: Mapping[str, Any]) -> bool:
        """Whether this backend can run a checkpoint with this config.json."""
        ...

    def check(self, checkpoint: Checkpoint) -> None:
        """Look for what would stop a checkpoint that was accepted; its vocabulary is checked after this.

        Raises:
            ModelError: This backend cannot run it.
        """
        ...

    def max_tokens(self, config: Mapping[str, Any]) -> int | None:
        """Tokens of the longest sequence, special tokens included; None where there is no limit."""
        ...

    def arithmetic(self, config: Mapping[str, Any], device: str, precision: str) -> Arithmetic:
        """What `load` would compute with on this machine; where that is less than what was asked for, it is logged.

        Args:
            config: What config.json says.
            device: cpu or cuda.
            precision: One of PRECISIONS[device].
        """
        ...

    def load(self, checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> Backend:
        """Read the weights onto the device.

        Args:
            checkpoint: Files and config, already checked.
            info: What the backend returns as its own `info`; its precision is resolved and one of PRECISIONS[device].
            device: cpu or cuda.
            threads: CPU threads of the forward pass and the tokenizer; None leaves the library's own choice.

        Raises:
            ModelError: Where weights and config do not fit together.
        """
        ...


def backend_names() -> list[str]:
    """Names of the files in this folder, fallbacks last."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return sorted(names, key=lambda name: _module(name).FALLBACK)


def find_backend(wanted: str, checkpoint: Checkpoint) -> tuple[str, BackendModule]:
    """The backend with this name, or for `auto` the first that accepts the checkpoint.

    Raises:
        JobError: No backend has this name.
        ModelError: The backend, or every backend, refuses the checkpoint.
    """
    names = backend_names()
    if wanted not in ("auto", *names):
        raise JobError(f"--backend {wanted!r}", rule=f"a backend is auto or one of {', '.join(names)}")
    for name in names if wanted == "auto" else [wanted]:
        if _module(name).accepts(checkpoint.config):
            return name, _module(name)
    raise ModelError(
        f"Model {checkpoint.name}: type {checkpoint.config.get('model_type')!r}, class {checkpoint.architecture}",
        rule=f"backend {wanted} takes no such model",
        next_step="use a sequence-classification checkpoint, or --backend auto",
    )


def choose_precision(wanted: str, device: str, name: str) -> str:
    """The precision that `wanted` means for this backend on this device.

    Raises:
        JobError: The backend cannot do it there.
    """
    offered = _module(name).PRECISIONS.get(device, ())
    if not offered or wanted not in ("auto", *offered):
        raise JobError(
            f"--precision {wanted} on device {device} with backend {name}",
            rule=f"it can do {', '.join(offered) or 'nothing'} there",
            next_step="choose one of these, or auto",
        )
    return offered[0] if wanted == "auto" else wanted


def _module(name: str) -> BackendModule:
    return cast(BackendModule, importlib.import_module(f"{__name__}.{name}"))
