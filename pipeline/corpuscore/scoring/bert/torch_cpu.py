"""The unpadded path on the CPU, exact, in torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.records import ScorerInfo
from corpuscore.scoring.accelerator import translated
from corpuscore.scoring.bert.packed import load_packed
from corpuscore.scoring.bert.positions import padding_before, positions
from corpuscore.scoring.bert.within import GroupedAttention
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenized import TokenizedBackend
from corpuscore.scoring.weights.transformers_model import use_threads

#: Tokens of a forward pass: enough for wide matrix products, few enough for their results to stay near the cores.
TOKEN_BUDGET = 2_048


class CpuBackend(TokenizedBackend):
    """A Backend for the BERT family in fp32."""

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, *, threads: int | None) -> None:
        super().__init__(checkpoint, info, threads)
        use_threads(threads)
        self._classifier = load_packed(checkpoint, info.precision, "cpu", info.activation)
        self._padding = padding_before(checkpoint.config)

    @property
    def token_budget(self) -> int:
        """Tokens of a forward pass."""
        return TOKEN_BUDGET

    @torch.inference_mode()
    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L].

        Raises:
            MemoryError: The memory does not hold the pack.
        """
        with translated():
            probs_SL = self._classifier(
                torch.from_numpy(tokens.ids).long(),
                torch.from_numpy(positions(tokens.ids, tokens.offsets, self._padding)),
                torch.from_numpy(tokens.offsets),
                GroupedAttention(tokens.lengths.tolist()),
            )
        return probs_SL.numpy()  # type: ignore[no-any-return]
