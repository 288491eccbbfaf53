"""Exact attention within documents that lie end to end, in torch's own kernels.

Shape suffixes: T tokens of all documents, S documents of one length, H heads, N tokens of one document, D width of a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

#: query, key, value [1, H, T, D], scaling, window -> [1, T, H, D]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, int | None], torch.Tensor]
#: query, key [S, H, N, D] -> what is added to their scaled products [S or 1, H, N, N]
Bias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Numbers of a bias at the most that live at once, where it is of more than one document.
_BIAS_CELLS_CPU, _BIAS_CELLS_GPU = 2**22, 2**27


class GroupedAttention:
    """An Attend: neighbours of one length form a batch for torch's own kernel.

    The engine sorts documents by length, so that there are few groups.

    Args:
        lengths_S: Tokens of each document.

    Attributes:
        runs: (first token, documents, length) of each run of equal lengths.
    """

    def __init__(self, lengths_S: Sequence[int]) -> None:
        self.runs = _runs(lengths_S)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
        bias: Bias | None = None,
    ) -> torch.Tensor:
        """See Attend; with a bias, that is added."""
        heads, _, width = query.shape[1:]
        out_THD = query.new_empty(query.shape[2], heads, width)
        for start, count, length in self._batches(heads, query.device) if bias else self.runs:
            span = slice(start, start + count * length)
            q_SHND, k_SHND, v_SHND = (
                one[0, :, span].view(heads, count, length, width).transpose(0, 1) for one in (query, key, value)
            )
            mask = bias(q_SHND, k_SHND) if bias else _window_mask(length, window, query.device)
            out_SHND = scaled_dot_product_attention(q_SHND, k_SHND, v_SHND, attn_mask=mask, scale=scaling)
            out_THD[span] = out_SHND.transpose(1, 2).flatten(0, 1)
        return out_THD[None]

    def _batches(self, heads: int, device: torch.device) -> list[tuple[int, int, int]]:
        """The runs in pieces whose biases fit."""
        pieces = []
        cells = _BIAS_CELLS_CPU if device.type == "cpu" else _BIAS_CELLS_GPU
        for start, count, length in self.runs:
            most = max(1, cells // (heads * length * length))
            pieces += [(start + at * length, min(most, count - at), length) for at in range(0, count, most)]
        return pieces


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """True where a token may look: nearer than `window`; None where that is everywhere."""
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None, :]).abs() < window
