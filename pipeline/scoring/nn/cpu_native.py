"""The unpadded path on the CPU in native code: exact in fp32, fast in int8."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.records import ScorerInfo
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.nn import packed
from pipeline.scoring.nn.cpu_encoder import CpuEncoder, why_not
from pipeline.scoring.nn.cpu_int8 import calibration_texts, gated_int8, random_sequences
from pipeline.scoring.nn.loading import load_model
from pipeline.scoring.nn.packed_cpu import CpuBackend
from pipeline.scoring.scorer import Backend, Tokens
from pipeline.scoring.tokenizer import TextTokenizer

_LOG = logging.getLogger(__name__)

#: Tokens of a forward pass for each thread: about eight of the groups that the kernel hands to threads.
TOKENS_A_THREAD = 2_048
#: Tokens at the most of a text that judges int8.
CALIBRATION_TOKENS = 128


def load_on_cpu(checkpoint: Checkpoint, info: ScorerInfo, *, threads: int | None) -> Backend:
    """The native backend, or where this machine or this model cannot have it, torch in fp32; that is announced.

    Raises:
        ModelError: Where weights and config do not fit together.
    """
    model = load_model(checkpoint, info.precision, "cpu", packed.ATTENTION)
    reason = why_not(model)
    if not reason:
        return NativeBackend(checkpoint, info, model, threads=threads)
    _LOG.warning("Model %s runs in torch on the CPU, in fp32, several times slower: %s", checkpoint.name, reason)
    return CpuBackend(checkpoint, info, threads=threads)


class NativeBackend:
    """A Backend for the BERT family in fp32 or gated int8.

    Args:
        checkpoint: Where the tokenizer lies.
        info: What this backend is; its precision decides between fp32 and int8.
        model: The loaded weights, which are copied.
        threads: Threads of a forward pass; None takes the cores that this process may use.
    """

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, model: Any, *, threads: int | None) -> None:
        self._info = info
        self._tokenizer = checkpoint.tokenizer(threads)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._max_positions = packed.max_positions(model.config)
        self._encoder = self._int8(model) if info.precision == "int8" else CpuEncoder(model)

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._info

    @property
    def max_positions(self) -> int | None:
        """Tokens of the longest document that the model has positions for."""
        return self._max_positions

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text."""
        return self._tokenizer.special_tokens

    @property
    def token_budget(self) -> int:
        """Tokens of a forward pass."""
        return TOKENS_A_THREAD * max(self._threads, 2)

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, cut to max_tokens where given."""
        return self._tokenizer.encode(texts, max_tokens)

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L], bit for bit independent of the other sequences."""
        return self._probabilities(self._encoder.logits(tokens.ids, tokens.offsets, threads=self._threads))

    def _probabilities(self, logits_SL: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return _sigmoid(logits_SL) if self._info.activation == "sigmoid" else _softmax(logits_SL)

    def _int8(self, model: Any) -> CpuEncoder:
        vocabulary = model.get_input_embeddings().num_embeddings
        ids, offsets = _calibration(self._tokenizer, vocabulary, min(CALIBRATION_TOKENS, self._max_positions))
        return gated_int8(model, ids, offsets, self._probabilities, threads=self._threads).encoder


def _sigmoid(logits_SL: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Like torch's, whose last bit depends on where in the array an element lies."""
    small_SL = np.exp(-np.abs(logits_SL))
    probs_SL: npt.NDArray[np.float32] = np.where(logits_SL < 0, small_SL, np.float32(1)) / (1 + small_SL)
    return probs_SL


def _softmax(logits_SL: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    small_SL = np.exp(logits_SL - logits_SL.max(axis=1, keepdims=True))
    probs_SL: npt.NDArray[np.float32] = small_SL / small_SL.sum(axis=1, keepdims=True)
    return probs_SL


def _calibration(
    tokenizer: TextTokenizer, vocabulary: int, max_tokens: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Sentences and random tokens, end to end, to judge a model by."""
    tokens = tokenizer.encode(calibration_texts(), max_tokens)
    first, last = (np.array(ids, np.int32) for ids in (tokenizer.prefix, tokenizer.suffix))
    random = random_sequences(first, last, vocabulary)
    random = [sequence for sequence in random if len(sequence) <= max_tokens]
    lengths = [*tokens.lengths, *map(len, random)]
    return np.concatenate([tokens.ids, *random]), np.cumsum([0, *lengths])
