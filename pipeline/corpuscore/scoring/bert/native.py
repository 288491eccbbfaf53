"""The unpadded path on the CPU in native code: exact in fp32, fast in int8. Neither torch nor transformers is imported,
so that a worker is ready in a second.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpuscore.errors import ModelError
from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert.encoder import SOURCE, CpuEncoder, Network, int8_pays, why_not
from corpuscore.scoring.bert.int8 import calibration_texts, gated_int8, random_sequences
from corpuscore.scoring.bert.positions import max_tokens
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.devices import cpu_threads, torch_arithmetic
from corpuscore.scoring.kernels import build
from corpuscore.scoring.scorer import Arithmetic, Backend, Tokens
from corpuscore.scoring.tokenized import TokenizedBackend
from corpuscore.scoring.tokenizer import TextTokenizer
from corpuscore.scoring.weights.arrays import Floats, read_weights

_LOG = logging.getLogger(__name__)

#: Tokens of a forward pass for each thread: about eight of the groups that the kernel hands to threads.
TOKENS_A_THREAD = 2_048
#: Tokens at the most of a text that judges int8.
CALIBRATION_TOKENS = 128


def arithmetic(config: Mapping[str, Any], precision: str) -> Arithmetic:
    """What a checkpoint with this config.json is computed with here.

    Args:
        config: What config.json says.
        precision: fp32 or int8, as asked for; int8 where it is not faster means fp32, and that is logged.
    """
    if reason := why_not(config):
        found = Arithmetic("fp32", torch_arithmetic())
    else:
        reason = "" if int8_pays() else f"{SOURCE} at level {build.level(SOURCE)} is not faster in int8"
        found = Arithmetic("fp32" if reason else precision, build.arithmetic(SOURCE))
    if found.precision != precision:
        _LOG.warning("int8 runs as fp32 here: %s", reason)
    return found


def load_on_cpu(checkpoint: Checkpoint, info: ScorerInfo, *, threads: int | None) -> Backend:
    """The native backend, or where this machine or this model cannot have it, torch in fp32; that is announced.

    Raises:
        ModelError: Where weights and config do not fit together.
    """
    reason = why_not(checkpoint.config)
    if not reason:
        return NativeBackend(checkpoint, info, threads=threads)
    _LOG.warning("Model %s runs in torch on the CPU, in fp32, several times slower: %s", checkpoint.name, reason)
    from corpuscore.scoring.bert.torch_cpu import CpuBackend

    return CpuBackend(checkpoint, info, threads=threads)


class NativeBackend(TokenizedBackend):
    """A Backend for the BERT family in fp32 or gated int8.

    Args:
        checkpoint: Weights, config and tokenizer, for which `encoder.why_not` is empty.
        info: What this backend is; its precision decides between fp32 and int8.
        threads: Threads of a forward pass; None: see devices.cpu_threads.

    Raises:
        ModelError: Weights and config do not fit together.
    """

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, *, threads: int | None) -> None:
        super().__init__(checkpoint, info, threads)
        self._threads = cpu_threads(threads)
        network = _network(checkpoint)
        self._encoder = self._int8(checkpoint, network) if info.precision == "int8" else CpuEncoder(network)

    @property
    def token_budget(self) -> int:
        """Tokens of a forward pass."""
        return TOKENS_A_THREAD * max(self._threads, 2)

    def forward(self, tokens: Tokens) -> Floats:
        """Probabilities float32 [S, L], bit for bit independent of the other sequences."""
        return self._scored(tokens, self._threads)

    @property
    def cores(self) -> int:
        """How many passes at once have all cores at work; see ByCore."""
        return self._threads

    def forward_on_core(self, tokens: Tokens) -> Floats:
        """Like forward, in the calling thread alone."""
        return self._scored(tokens, 1)

    def _scored(self, tokens: Tokens, threads: int) -> Floats:
        return self._probabilities(self._encoder.logits(tokens.ids, tokens.offsets, threads=threads))

    def _probabilities(self, logits_SL: Floats) -> Floats:
        return _sigmoid(logits_SL) if self._info.activation == "sigmoid" else _softmax(logits_SL)

    def _int8(self, checkpoint: Checkpoint, network: Network) -> CpuEncoder:
        longest = min(CALIBRATION_TOKENS, max_tokens(checkpoint.config) or CALIBRATION_TOKENS)
        ids, offsets = _calibration(self._tokenizer, network.vocabulary, longest)
        return gated_int8(network, ids, offsets, self._probabilities, threads=self._threads).encoder


def _network(checkpoint: Checkpoint) -> Network:
    try:
        return Network.of(checkpoint.config, len(checkpoint.labels), read_weights(checkpoint))
    except ValueError as error:
        raise ModelError(
            f"Model {checkpoint.name}: {error}",
            rule="weights and config.json belong together, and a scorer's head is trained, not random",
            next_step="load it once with transformers and save it again, or fine-tune it first: corpuscore train",
        ) from error


def _sigmoid(logits_SL: Floats) -> Floats:
    """Like torch's, whose last bit depends on where in the array an element lies."""
    small_SL = np.exp(-np.abs(logits_SL))
    probs_SL: Floats = np.where(logits_SL < 0, small_SL, np.float32(1)) / (1 + small_SL)
    return probs_SL


def _softmax(logits_SL: Floats) -> Floats:
    small_SL = np.exp(logits_SL - logits_SL.max(axis=1, keepdims=True))
    probs_SL: Floats = small_SL / small_SL.sum(axis=1, keepdims=True)
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
