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
from pipeline.scoring.nn.loading import probabilities, use_threads
from pipeline.scoring.nn.srupp_folder import load_network
from pipeline.scoring.scorer import Tokens

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _SruppBackend:
    """What both devices share."""

    token_budget: int
    max_positions = None  # a recurrence has no last position

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, device: str, threads: int | None) -> None:
        self._info = info
        self._device = device
        self._tokenizer = checkpoint.tokenizer(threads)
        self._network = load_network(checkpoint.folder).to(device, _DTYPES[info.precision])

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

    @torch.inference_mode()
    def _probabilities(self, tokens: Tokens) -> torch.Tensor:
        ids_T = torch.from_numpy(tokens.ids).to(self._device, non_blocking=True)
        logits_SL = self._network(ids_T, torch.from_numpy(tokens.offsets))
        return probabilities(logits_SL, self._info.activation)


class CpuSruppBackend(_SruppBackend):
    """On the CPU, in fp32."""

    token_budget = 16_384

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, threads: int | None) -> None:
        use_threads(threads)
        super().__init__(checkpoint, info, "cpu", threads)

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L]."""
        rows: npt.NDArray[np.float32] = self._probabilities(tokens).numpy()
        return rows


class CudaSruppBackend(_SruppBackend):
    """On a GPU; the next pack is prepared while the last one runs."""

    token_budget = 262_144

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo) -> None:
        super().__init__(checkpoint, info, "cuda", None)

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L]."""
        return self.submit(tokens)()

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a forward pass; the result waits for it."""
        queued_SL = self._probabilities(tokens)
        return lambda: queued_SL.cpu().numpy()
