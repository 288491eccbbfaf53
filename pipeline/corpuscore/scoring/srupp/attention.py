"""Attention inside each of many documents that lie end to end, with no padding between them.

Shape suffixes: T tokens of all documents, D documents, P projected features, H heads, E features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from corpuscore.scoring.accelerator import flash_attention, has_flash


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch lie; what follows from that is derived once for all layers.

    Attributes:
        offsets: int64 [D + 1] on the CPU: document d is tokens offsets[d] to offsets[d + 1].
        device: Where the tokens are.
        copied: The offsets there, int64, where someone has copied them already; copying waits for the device.
    """

    offsets: Tensor
    device: torch.device
    copied: Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """int64 [D] on the CPU."""
        return self.offsets.diff()

    @cached_property
    def on_device(self) -> Tensor:
        """The offsets, int64, beside the tokens."""
        return self.offsets.to(self.device) if self.copied is None else self.copied

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """(number of documents, their length) for each length but 0, ascending."""
        lengths, counts = torch.unique(self.lengths[self.lengths > 0], return_counts=True)
        return list(zip(counts.tolist(), lengths.tolist(), strict=True))

    @cached_property
    def shortest_first(self) -> Tensor | None:
        """The tokens in an order that has documents of a length together, int64 [T]; None where they are already."""
        if bool((self.lengths.diff() >= 0).all()):
            return None
        order = torch.argsort(self.lengths, stable=True)
        lengths, starts = self.lengths[order], self.offsets[:-1][order]
        shift = starts - nn.functional.pad(lengths.cumsum(0)[:-1], (1, 0))
        return (torch.arange(int(self.offsets[-1])) + shift.repeat_interleave(lengths)).to(self.device)


def attend(q_TP: Tensor, k_TP: Tensor, v_TP: Tensor, heads: int, documents: Documents, dropout: float) -> Tensor:
    """softmax(q k' / sqrt(E)) v in each document, [T, P].

    Args:
        q_TP, k_TP, v_TP: Queries, keys and values.
        heads: Number of heads.
        documents: Where they lie.
        dropout: Probability that an attention weight is dropped.
    """
    if not len(q_TP):
        return v_TP
    q_THE, k_THE, v_THE = (tensor.reshape(len(tensor), heads, -1) for tensor in (q_TP, k_TP, v_TP))
    if not dropout and has_flash(q_TP.device.type, q_TP.dtype, q_THE.shape[2]):
        return _attend_varlen(q_THE, k_THE, v_THE, documents).flatten(1)
    return _attend_by_length(torch.stack([q_THE, k_THE, v_THE], dim=1), documents, dropout).flatten(1)


def _attend_by_length(qkv_T3HE: Tensor, documents: Documents, dropout: float) -> Tensor:
    """Documents of the same length go together, so that nothing is padded. Returns [T, H, E]."""
    order = documents.shortest_first
    mixed = []
    sizes = [count * length for count, length in documents.groups]
    groups = torch.split(qkv_T3HE if order is None else qkv_T3HE[order], sizes)
    for (count, _), tokens in zip(documents.groups, groups, strict=True):
        q, k, v = tokens.reshape(count, -1, *tokens.shape[1:]).permute(2, 0, 3, 1, 4).unbind(0)
        mixed.append(
            nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(0, 1)
        )
    mixed_THE = torch.cat(mixed)
    return mixed_THE if order is None else mixed_THE[torch.argsort(order)]


def _attend_varlen(q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, documents: Documents) -> Tensor:
    """One kernel for documents of any lengths; half precision on a GPU only."""
    return flash_attention(q_THE, k_THE, v_THE, documents.on_device.int(), int(documents.lengths.max()))
