"""Checkpoints of a training run: written whole or not at all, the two newest kept, the newest readable one loaded."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from corpuscore.files import is_draft, placed

log = logging.getLogger(__name__)

_KEPT = 2


def save_checkpoint(state: dict[str, Any], folder: Path, step: int) -> Path:
    """Write a checkpoint so that a kill at any moment leaves either this one or those before.

    A run has one writer, so whatever draft is left is that of a killed one, and goes.
    """
    path = folder / f"step-{step:09d}.pt"
    with placed(path) as draft, draft.open("wb") as file:
        torch.save(state, file)  # to a path, it would write its name into the file
    drafts = [entry for entry in folder.iterdir() if is_draft(entry.name)]
    for old in [*_found(folder)[:-_KEPT], *drafts]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; one that cannot is announced and passed over."""
    for path in reversed(_found(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            log.warning("Checkpoint %s cannot be read (%s); taking the one before", path, error)
            continue
        return state
    return None


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
