"""Any sequence-classification checkpoint that transformers has built in, padded: the slower path, and it says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from corpuscore.errors import ModelError
from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert import positions
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.devices import torch_arithmetic
from corpuscore.scoring.scorer import Arithmetic, Backend

FALLBACK = True
PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",), "cuda": ("bf16", "fp16", "fp32")}

#: Model types whose head looks for the last token that is no padding, and whose config class names no padding token.
NO_PADDING_TOKEN = frozenset((
    "arcee", "axk1", "axk2", "bloom", "ctrl", "deepseek_v2", "deepseek_v3", "diffllama", "doge", "exaone4", "falcon",
    "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "jetmoe", "llama", "minicpm3",
    "minimax", "ministral", "mistral", "mixtral", "mpt", "nemotron", "openai-gpt", "persimmon", "phi", "phimoe",
    "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next", "stablelm", "starcoder2",
))  # fmt: skip

_log = logging.getLogger(__name__)


def accepts(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was saved as a sequence classifier."""
    return any("ForSequenceClassification" in name for name in config.get("architectures") or ())


def check(checkpoint: Checkpoint) -> None:
    """A decoder needs a padding token."""
    config = checkpoint.config
    if config.get("model_type") in NO_PADDING_TOKEN and config.get("pad_token_id") is None:
        raise _no_padding_token(checkpoint)


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
    backend = PaddedBackend(checkpoint, info, device=device, threads=threads)
    if not backend.takes_two_texts():
        raise _no_padding_token(checkpoint)
    return backend


def _no_padding_token(checkpoint: Checkpoint) -> ModelError:
    return ModelError(
        f"Model {checkpoint.name} ({checkpoint.architecture}) has no pad_token_id in config.json",
        rule="a decoder's scores are read at the last token that is no padding, which only that id tells",
        next_step="set it to the id that the model was trained with: the tokenizer's padding or end token",
    )
