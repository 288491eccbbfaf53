"""Any sequence-classification checkpoint that transformers has built in, padded: the slower path, and it says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert import positions
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.devices import torch_arithmetic
from corpuscore.scoring.scorer import Arithmetic, Backend

FALLBACK = True
PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",), "cuda": ("bf16", "fp16", "fp32")}

_log = logging.getLogger(__name__)


def accepts(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was saved as a sequence classifier."""
    return any("ForSequenceClassification" in name for name in config.get("architectures") or ())


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """What the config says; it says nothing where positions are relative."""
    return positions.max_tokens(config)


def arithmetic(config: Mapping[str, Any], device: str, precision: str) -> Arithmetic:  # noqa: ARG001  (the contract)
    """torch's on this device."""
    return Arithmetic(precision, torch_arithmetic() if device == "cpu" else "")


def load(checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> Backend:
    """Load it through transformers' auto classes; see backends/__init__.py for arguments and errors."""
    from corpuscore.scoring.padded import PaddedBackend

    _log.warning(
        "Model %s (%s) runs padded, which is slower: no unpadded path is known for its architecture.",
        checkpoint.name,
        checkpoint.architecture,
    )
    return PaddedBackend(checkpoint, info, device=device, threads=threads)
