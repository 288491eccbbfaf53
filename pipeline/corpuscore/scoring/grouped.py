"""Any classifier of transformers, through its own forward pass, in groups of texts of equal length: nothing is padded.

On a GPU transformers looks at each mask before its pass, and waits for it; what is ours waits for the result alone.

Shape suffixes: S sequences, N tokens of each sequence of a group, L labels.
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
from corpuscore.scoring.weights.equal_rows import EqualRows
from corpuscore.scoring.weights.transformers_model import (
    DTYPES,
    bytes_a_token,
    check_ids,
    load_model,
    probabilities,
    use_threads,
)

#: Tokens of a group at the most, by device.
CELLS = {"cpu": 4_096, "cuda": 65_536}


class GroupedBackend(QueuedBackend):
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
        self._model = load_model(checkpoint, info.precision, device)
        self._rows = EqualRows(self._model, checkpoint.folder, self.special_tokens, checkpoint.name)
        self._passes = Passes(device)
        self._cells = CELLS[device]
        if device == "cuda":
            one = bytes_a_token(self._model.config, DTYPES[info.precision].itemsize)
            self._cells = fitting_tokens(one, free_bytes(device), CELLS[device])

    @property
    def token_budget(self) -> int:
        """Tokens of a group."""
        return self._cells

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack; see QueuedBackend.

        Raises:
            ValueError: A sequence has no token.
            IndexError: A token has no row in the embedding.
        """
        check_ids(tokens, self._model)
        return self._passes.submit(len(tokens.lengths), partial(self._queue, tokens))

    def _queue(self, tokens: Tokens, slot: Slot) -> torch.Tensor:
        """All groups of a pack, after one copy of their tokens and of where each row belongs."""
        groups = _groups(tokens, self._rows.end_token, self._cells)
        order = np.concatenate(groups)
        parts = [packing.take(tokens, members).ids for members in groups]
        sizes = [*map(len, parts), len(order)]
        numbers = slot.room(sum(sizes))
        np.concatenate([*parts, np.argsort(order)], out=numbers.numpy(), casting="same_kind")
        *flat, place_S = torch.split(numbers.to(self._device, non_blocking=True), sizes)
        rows = [self._group(ids.view(len(some), -1)) for ids, some in zip(flat, groups, strict=True)]
        return torch.cat(rows)[place_S.long()]

    def _group(self, ids_SN: torch.Tensor) -> torch.Tensor:
        return probabilities(self._rows.logits(ids_SN.long()), self._info.activation)


def _groups(tokens: Tokens, end_token: int | None, cells: int) -> list[npt.NDArray[np.int64]]:
    """Sequences of one length, and with as many end tokens, whose tokens together stay within cells; the longest first.

    Args:
        tokens: A pack; no sequence is empty.
        end_token: None where these do not matter.
        cells: Tokens of a group at the most, where it is of more than one sequence.
    """
    lengths_S = tokens.lengths
    ends_S = np.zeros_like(lengths_S)
    if end_token is not None:
        ends_S = np.add.reduceat(tokens.ids == end_token, tokens.offsets[:-1], dtype=np.int64)
    order = np.lexsort((ends_S, -lengths_S))
    kinds = np.stack([lengths_S[order], ends_S[order]])
    starts = np.flatnonzero((kinds[:, 1:] != kinds[:, :-1]).any(axis=0)) + 1
    groups: list[npt.NDArray[np.int64]] = []
    for members in np.split(order, starts):
        count = max(1, cells // int(lengths_S[members[0]]))
        groups += [members[at : at + count] for at in range(0, len(members), count)]
    return groups
