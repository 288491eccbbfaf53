"""The padded path: transformers' own forward pass, one rectangle a pack.

Shape suffixes: S sequences, N tokens of the longest sequence, L labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.records import ScorerInfo
from corpuscore.scoring import packing
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenized import TokenizedBackend
from corpuscore.scoring.weights.transformers_model import load_model, probabilities, use_threads

#: Cells of a rectangle at the most, by device; packs come sorted, so that little of it is padding.
CELLS = {"cpu": 4_096, "cuda": 65_536}


class PaddedBackend(TokenizedBackend):
    """A Backend for any sequence classifier of transformers."""

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> None:
        super().__init__(checkpoint, info, threads)
        use_threads(threads)
        self._device = device
        self._model = load_model(checkpoint, info.precision, device, "sdpa")
        self._pad = self._model.config.pad_token_id or 0

    @property
    def token_budget(self) -> int:
        """Cells of a rectangle."""
        return CELLS[self._device]

    @torch.inference_mode()
    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L], in rectangles of at most CELLS."""
        rows = np.empty((len(tokens.lengths), len(self._info.labels)), np.float32)
        for members in _rectangles(tokens.lengths, CELLS[self._device]):
            rows[members] = self._rectangle(packing.take(tokens, members))
        return rows

    def _rectangle(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        lengths = torch.from_numpy(tokens.lengths)
        mask_SN = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        ids_SN = torch.full(mask_SN.shape, self._pad, dtype=torch.int64)
        ids_SN[mask_SN] = torch.from_numpy(tokens.ids).long()
        logits_SL = self._model(
            input_ids=ids_SN.to(self._device), attention_mask=mask_SN.long().to(self._device)
        ).logits
        return probabilities(logits_SL, self._info.activation).cpu().numpy()


def _rectangles(lengths_S: npt.NDArray[np.int64], cells: int) -> list[npt.NDArray[np.int64]]:
    """Groups of like length whose count times longest stays within cells."""
    order = np.argsort(-lengths_S, kind="stable")
    groups, start = [], 0
    while start < len(order):
        count = max(1, cells // int(lengths_S[order[start]]))
        groups.append(order[start : start + count])
        start += count
    return groups
