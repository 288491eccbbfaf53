"""The padded path: transformers' own forward pass, in rectangles of texts of like length.

On a GPU transformers looks at each mask before its pass, and waits for it; what is ours waits for the result alone.

Shape suffixes: S sequences, N tokens of the longest sequence of a rectangle, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.records import ScorerInfo
from corpuscore.scoring import packing
from corpuscore.scoring.accelerator import Passes, Slot, fitting_tokens, free_bytes
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenized import QueuedBackend
from corpuscore.scoring.weights.transformers_model import (
    DTYPES,
    bytes_a_token,
    load_model,
    probabilities,
    use_threads,
)

#: Cells of a rectangle at the most, by device; packs come sorted, so that little of it is padding.
CELLS = {"cpu": 4_096, "cuda": 65_536}


class PaddedBackend(QueuedBackend):
    """A Pipelined Backend for any sequence classifier of transformers; on a CPU, passes are done when they are queued.

    Args:
        checkpoint: Already checked.
        info: What this backend is.
        device: cpu or cuda.
        threads: Of the forward pass on a CPU, and of the tokenizer.

    Raises:
        ModelError: Weights that do not fit the config.
    """

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, *, device: str, threads: int | None) -> None:
        super().__init__(checkpoint, info, threads)
        use_threads(threads)
        self._device = device
        self._model = load_model(checkpoint, info.precision, device, "sdpa")
        self._model.config.use_cache = False  # of a decoder's keys and values: nothing is generated
        self._pad = self._model.config.pad_token_id or 0
        self._passes = Passes(device)
        self._cells = CELLS[device]
        if device == "cuda":
            one = bytes_a_token(self._model.config, DTYPES[info.precision].itemsize)
            self._cells = fitting_tokens(one, free_bytes(device), CELLS[device])

    @property
    def token_budget(self) -> int:
        """Cells of a rectangle."""
        return self._cells

    def takes_two_texts(self) -> bool:
        """Whether a rectangle may have more than one row, which decoders without a padding token refuse."""
        if self._model.config.pad_token_id is not None:
            return True
        try:
            self.forward(Tokens(np.zeros(3, np.int32), np.array([0, 1, 3])))
        except ValueError:
            return False
        return True

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack; see QueuedBackend."""
        return self._passes.submit(len(tokens.lengths), partial(self._queue, tokens))

    def _queue(self, tokens: Tokens, slot: Slot) -> torch.Tensor:
        """All rectangles of a pack, after one copy of their cells, of the lengths and of where each row belongs."""
        groups = _rectangles(tokens.lengths, self._cells)
        order = np.concatenate(groups)
        cells = [_cells(packing.take(tokens, members), self._pad) for members in groups]
        parts: list[npt.NDArray[np.integer]] = [rectangle_SN.ravel() for rectangle_SN in cells]
        parts += [tokens.lengths[order], np.argsort(order)]
        sizes = [len(part) for part in parts]
        numbers = slot.room(sum(sizes))
        np.concatenate(parts, out=numbers.numpy(), casting="same_kind")
        *flat, lengths_S, place_S = torch.split(numbers.to(self._device, non_blocking=True), sizes)
        lengths = torch.split(lengths_S, [len(members) for members in groups])
        rows = [self._rectangle(ids.view(len(some), -1), some) for ids, some in zip(flat, lengths, strict=True)]
        return torch.cat(rows)[place_S.long()]

    def _rectangle(self, ids_SN: torch.Tensor, lengths_S: torch.Tensor) -> torch.Tensor:
        mask_SN = torch.arange(ids_SN.shape[1], device=ids_SN.device)[None, :] < lengths_S[:, None]
        logits_SL = self._model(input_ids=ids_SN.long(), attention_mask=mask_SN.long()).logits
        return probabilities(logits_SL, self._info.activation)


def _rectangles(lengths_S: npt.NDArray[np.int64], cells: int) -> list[npt.NDArray[np.int64]]:
    """Groups of like length whose count times longest stays within cells."""
    order = np.argsort(-lengths_S, kind="stable")
    groups, start = [], 0
    while start < len(order):
        count = max(1, cells // int(lengths_S[order[start]]))
        groups.append(order[start : start + count])
        start += count
    return groups


def _cells(tokens: Tokens, pad: int) -> npt.NDArray[np.int32]:
    """Sequences as rows, int32 [S, N], with padding behind each."""
    lengths_S = tokens.lengths
    used_SN = np.arange(lengths_S.max())[None, :] < lengths_S[:, None]
    ids_SN = np.full(used_SN.shape, pad, np.int32)
    ids_SN[used_SN] = tokens.ids
    return ids_SN
