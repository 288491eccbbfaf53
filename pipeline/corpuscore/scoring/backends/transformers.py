"""Any sequence-classification checkpoint that transformers has built in, in groups of texts of equal length."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from corpuscore.errors import ModelError
from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert import positions
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.devices import torch_arithmetic
from corpuscore.scoring.families import why_refused
from corpuscore.scoring.scorer import Arithmetic, Backend

FALLBACK = True
PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",), "cuda": ("bf16", "fp16", "fp32")}

#: Counts changes of this path that change scores, such as from padded rectangles to groups.
_REVISION = 2

_log = logging.getLogger(__name__)


def accepts(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was saved as a sequence classifier."""
    return any("ForSequenceClassification" in name for name in config.get("architectures") or ())


def check(checkpoint: Checkpoint) -> None:
    """Its type must be one that is scored from a text alone."""
    kind = checkpoint.config.get("model_type")
    if reason := why_refused(kind):
        raise ModelError(
            f"Model {checkpoint.name} ({checkpoint.architecture}, of type {kind!r}) cannot be scored: {reason}",
            rule="docs/models.md lists the types that can",
            next_step="use a checkpoint of one of these",
        )


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """What the config says; it says nothing where positions are relative."""
    return positions.max_tokens(config)


def arithmetic(config: Mapping[str, Any], device: str, precision: str) -> Arithmetic:  # noqa: ARG001  (the contract)
    """torch's on this device."""
    kind = f"groups.{_REVISION}"
    return Arithmetic(precision, f"{kind}-{torch_arithmetic()}" if device == "cpu" else kind)


def load(checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> Backend:
    """Load it through transformers' auto classes; see backends/__init__.py for arguments and errors."""
    from corpuscore.scoring.grouped import GroupedBackend

    _log.warning(
        "Model %s (%s) runs in groups of texts of equal length, which is slower: no unpadded path is known for its "
        "architecture.",
        checkpoint.name,
        checkpoint.architecture,
    )
    return GroupedBackend(checkpoint, info, device=device, threads=threads)
