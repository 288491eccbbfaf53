"""SRU++ classifiers, as `corpuscore train distil` writes them: no padding and no longest text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corpuscore.records import ScorerInfo
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Arithmetic, Backend
from corpuscore.scoring.srupp.config import MODEL_TYPE

FALLBACK = False
PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",), "cuda": ("bf16", "fp16", "fp32")}


def accepts(config: Mapping[str, Any]) -> bool:
    """Whether config.json is that of an SRU++ classifier."""
    return config.get("model_type") == MODEL_TYPE


def check(checkpoint: Checkpoint) -> None:
    """The sizes of its network must be there, and make sense."""
    from corpuscore.scoring.srupp.folder import read_config

    read_config(checkpoint.folder)


def max_tokens(config: Mapping[str, Any]) -> int | None:  # noqa: ARG001  (the contract)
    """A recurrence has no last position."""
    return None


def arithmetic(config: Mapping[str, Any], device: str, precision: str) -> Arithmetic:  # noqa: ARG001  (the contract)
    """On a CPU that of the kernel, or of torch where this machine has none."""
    if device == "cuda":
        return Arithmetic(precision)
    from corpuscore.scoring.devices import torch_arithmetic
    from corpuscore.scoring.kernels import build
    from corpuscore.scoring.srupp import native

    return Arithmetic(precision, build.arithmetic(native.SOURCE) or torch_arithmetic())


def load(checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> Backend:
    """Load the weights onto the device; see backends/__init__.py for arguments and errors."""
    from corpuscore.scoring.srupp.backend import CpuSruppBackend, CudaSruppBackend

    return CudaSruppBackend(checkpoint, info) if device == "cuda" else CpuSruppBackend(checkpoint, info, threads)
