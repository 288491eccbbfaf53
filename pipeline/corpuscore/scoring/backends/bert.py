"""Encoders of the BERT family, unpadded: documents lie end to end in one sequence and attend only within themselves.

Covered are the sequence classifiers that `families.py` calls NATIVE and PACKED: BERT (MiniLM), RoBERTa, XLM-R,
CamemBERT, DistilBERT, ELECTRA, ALBERT, ModernBERT, DeBERTa-v2 and v3, and MPNet.
On the CPU, compiled kernels run them where they were built (`bert/encoder.py`); else torch does, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corpuscore.errors import ModelError
from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert.positions import max_tokens
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.families import NATIVE, PACKED
from corpuscore.scoring.scorer import Arithmetic, Backend

__all__ = ["FALLBACK", "PRECISIONS", "accepts", "arithmetic", "check", "load", "max_tokens"]

FALLBACK = False
PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("bf16", "fp16", "fp32", "fp8")}


def accepts(config: Mapping[str, Any]) -> bool:
    """Whether it is a sequence classifier of the family: bidirectional, with the positions usual for its kind."""
    return (
        config.get("model_type") in (*NATIVE, *PACKED)
        and any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


def check(checkpoint: Checkpoint) -> None:
    """There is nothing that such a model needs besides."""


def arithmetic(config: Mapping[str, Any], device: str, precision: str) -> Arithmetic:
    """On a CPU that of the kernel, or of torch where this machine or this model has none."""
    if device == "cuda":
        return Arithmetic(precision)
    from corpuscore.scoring.bert import native

    return native.arithmetic(config, precision)


def load(checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> Backend:
    """Load the weights for the device; see backends/__init__.py for arguments and errors."""
    backend = _loaded(checkpoint, info, device, threads)
    if not any(backend.special_tokens):
        raise ModelError(
            f"Model {checkpoint.name}: its tokenizer puts no special token around a text",
            rule="a text without letters has no token else, and a model needs one",
            next_step="save the tokenizer again, with its post-processor",
        )
    return backend


def _loaded(checkpoint: Checkpoint, info: ScorerInfo, device: str, threads: int | None) -> Backend:
    if device == "cuda":
        from corpuscore.scoring.bert.cuda import CudaBackend

        return CudaBackend(checkpoint, info, threads=threads)
    from corpuscore.scoring.bert.native import load_on_cpu

    return load_on_cpu(checkpoint, info, threads=threads)
