"""SRU++ classifiers as scoring backends.

Shape suffixes: T tokens of all sequences, S sequences, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.records import ScorerInfo
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.nn import sru_native
from pipeline.scoring.nn.loading import probabilities, use_threads
from pipeline.scoring.nn.srupp_classifier import SRUppClassifier
from pipeline.scoring.nn.srupp_folder import load_network
from pipeline.scoring.nn.srupp_native import NativeClassifier
from pipeline.scoring.scorer import Tokens

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Tokens to probabilities [S, L], on any device.
Classify = Callable[[Tokens], torch.Tensor]


class _SruppBackend:
    """What both devices share."""

    token_budget: int
    max_positions = None  # a recurrence has no last position

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, threads: int | None, classify: Classify) -> None:
        self._info = info
        self._tokenizer = checkpoint.tokenizer(threads)
        self._classify = classify

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._info

    @property
    def special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after each text."""
        return self._tokenizer.special_tokens

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Texts to ids with special tokens, cut to max_tokens where given."""
        return self._tokenizer.encode(texts, max_tokens)


class CpuSruppBackend(_SruppBackend):
    """On the CPU, in fp32: the native classifier, or torch where it could not be built (that was announced)."""

    token_budget = 16_384

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, threads: int | None) -> None:
        use_threads(threads)
        super().__init__(checkpoint, info, threads, _on_cpu(load_network(checkpoint.folder)))

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L]."""
        rows: npt.NDArray[np.float32] = self._classify(tokens).numpy()
        return rows


class CudaSruppBackend(_SruppBackend):
    """On a GPU; the next pack is prepared while the last one runs."""

    token_budget = 262_144

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo) -> None:
        network = load_network(checkpoint.folder).to("cuda", _DTYPES[info.precision])
        super().__init__(checkpoint, info, None, _in_torch(network, "cuda"))

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L]."""
        return self.submit(tokens)()

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a forward pass; the result waits for it."""
        queued_SL = self._classify(tokens)
        return lambda: queued_SL.cpu().numpy()


def _on_cpu(network: SRUppClassifier) -> Classify:
    if sru_native.missing():
        return _in_torch(network, "cpu")
    classify = NativeClassifier(network, torch.get_num_threads())
    return lambda tokens: torch.from_numpy(classify(tokens))


def _in_torch(network: SRUppClassifier, device: str) -> Classify:
    @torch.inference_mode()
    def classify(tokens: Tokens) -> torch.Tensor:
        ids_T = torch.from_numpy(tokens.ids).to(device, non_blocking=True)
        return probabilities(network(ids_T, torch.from_numpy(tokens.offsets)), network.config.activation)

    return classify
