"""The SRU recurrence on packed documents: its specification in plain loops, and a fallback in plain torch.

    f_t = sigmoid(U1_t + v1*c_{t-1} + b1)        c_t = f_t*c_{t-1} + (1 - f_t)*U0_t
    r_t = sigmoid(U2_t + v2*c_{t-1} + b2)        h_t = x_t + (c_t - x_t)*r_t*keep

The gates see c_{t-1}, so the recurrence is not linear in c and no scan over time is exact; what runs in parallel is
documents, directions and channels.

Source: Lei et al. 2018, arXiv 1709.02755, equations 1 to 4; Lei 2021, arXiv 2102.12459, section 2.

Shape suffixes: T tokens of all documents end to end, D documents, C channels of all directions (forward first), K the
matrices of U: candidate, forget, reset and, where it has one of its own, the skip input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Gates:
    """What a layer's recurrence takes besides its tokens.

    Attributes:
        weight_2C: v of the forget and the reset gate.
        bias_2C: b of the same.
        directions: 1, or 2 where the second half of the channels runs backward in time.
        scale: s, by which x is multiplied in the skip; without effect where the skip has its own matrix.
        start_DC: c before the first token; zero where None.
        keep_DC: Dropout mask of h - x, one for all tokens of a document; none where None.
    """

    weight_2C: Tensor
    bias_2C: Tensor
    directions: int = 1
    scale: float = 1.0
    start_DC: Tensor | None = None
    keep_DC: Tensor | None = None


#: (u_TKC, x_TC or None, gates, offsets [D + 1] int64) -> (h_TC, last_DC)
Recurrence = Callable[[Tensor, Tensor | None, Gates, Tensor], tuple[Tensor, Tensor]]


def reference(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The specification: one document, one direction, one token after the other.

    Args:
        u_TKC: Projected input; K = 3, or 4 with the skip input last.
        x_TC: The layer's input for the skip where K = 3; None for no skip.
        gates: Parameters, first state and dropout.
        offsets: int64 [D + 1] on the CPU; document d is tokens offsets[d] to offsets[d + 1].

    Returns:
        h_TC, and the state after each document's last token (last_DC; of the first token in the backward direction).
    """
    documents, channels = len(offsets) - 1, u_TKC.shape[2]
    forget_v, reset_v = gates.weight_2C.view(2, channels)
    forget_b, reset_b = gates.bias_2C.view(2, channels)
    start_DC, keep_DC, skip_TC = _defaults(u_TKC, x_TC, gates, documents)
    rows, last = [], []
    for d, (first, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        halves, ends = [], []
        for half, part in enumerate(torch.arange(channels).chunk(gates.directions)):
            c, h = start_DC[d, part], {}
            for t in range(first, stop) if half == 0 else range(stop - 1, first - 1, -1):
                f = torch.sigmoid(u_TKC[t, 1, part] + forget_v[part] * c + forget_b[part])
                r = torch.sigmoid(u_TKC[t, 2, part] + reset_v[part] * c + reset_b[part])
                c = f * c + (1 - f) * u_TKC[t, 0, part]
                h[t] = skip_TC[t, part] + (c - skip_TC[t, part]) * r * keep_DC[d, part]
            halves.append(torch.stack([h[t] for t in sorted(h)]) if h else u_TKC.new_zeros(0, len(part)))
            ends.append(c)
        rows.append(torch.cat(halves, dim=1))
        last.append(torch.cat(ends))
    return torch.cat(rows), torch.stack(last)


def stepwise(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The fallback in plain torch: a loop over time, all documents that are still running at once. As `reference`."""
    offsets = offsets.cpu()
    lengths = offsets.diff()
    documents, channels = len(lengths), u_TKC.shape[2]
    start_DC, keep_DC, skip_TC = _defaults(u_TKC, x_TC, gates, documents)
    order = torch.argsort(lengths, descending=True, stable=True)
    running = [int((lengths > t).sum()) for t in range(int(lengths.max()) if documents else 0)]
    halves, ends = [], []
    for half, part in enumerate(torch.arange(channels, device=u_TKC.device).chunk(gates.directions)):
        v, b = gates.weight_2C.view(2, 1, channels)[..., part], gates.bias_2C.view(2, 1, channels)[..., part]
        u, skip, keep = u_TKC[:, :, part], skip_TC[:, part], keep_DC[order][:, part]
        state = start_DC[order][:, part]
        steps, rows, finished = [], [], []
        for t, active in enumerate(running):
            at = (offsets[:-1][order[:active]] + t) if half == 0 else (offsets[1:][order[:active]] - 1 - t)
            at = at.to(u.device)
            finished.append(state[active:])
            c, now, x = state[:active], u[at], skip[at]
            f = torch.sigmoid(now[:, 1] + v[0] * c + b[0])
            r = torch.sigmoid(now[:, 2] + v[1] * c + b[1])
            state = f * c + (1 - f) * now[:, 0]
            steps.append(x + (state - x) * r * keep[:active])
            rows.append(at)
        by_length = torch.cat([state, *reversed(finished)])
        ends.append(by_length[torch.argsort(order)])
        place = torch.argsort(torch.cat(rows)) if rows else torch.zeros(0, dtype=torch.long)
        halves.append(torch.cat(steps)[place] if steps else skip)
    return torch.cat(halves, dim=1), torch.cat(ends, dim=1)


def _defaults(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, documents: int) -> tuple[Tensor, Tensor, Tensor]:
    """start_DC, keep_DC and the skip input, with what was left out filled in."""
    channels = u_TKC.shape[2]
    start_DC = gates.start_DC if gates.start_DC is not None else u_TKC.new_zeros(documents, channels)
    keep_DC = gates.keep_DC if gates.keep_DC is not None else u_TKC.new_ones(documents, channels)
    if u_TKC.shape[1] == 4:
        return start_DC, keep_DC, u_TKC[:, 3]
    return start_DC, keep_DC, x_TC * gates.scale if x_TC is not None else torch.zeros_like(u_TKC[:, 0])
