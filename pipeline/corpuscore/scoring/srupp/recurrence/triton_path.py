"""The SRU recurrence on the GPU: one program is one document, one direction and a block of channels.

Time is the only loop. The next token is fetched while the gates of this one are computed, since what is fetched does
not depend on the state. All arithmetic is fp32, whatever the tensors are. Long documents start first, so that none is
left over at the end.

Shape suffixes as in gates.py.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from corpuscore.scoring.srupp.recurrence import autograd
from corpuscore.scoring.srupp.recurrence.autograd import Gradients, Inputs
from corpuscore.scoring.srupp.recurrence.gates import Gates

#: Channels of a program: one warp, so that a few long documents still spread over the chip.
BLOCK = 32


def recurrence(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """As `gates.reference`; tensors may be fp32, fp16 or bf16."""
    return autograd.recurrence(sys.modules[__name__], u_TKC, x_TC, gates, offsets)


def forward(inputs: Inputs, h_TC: Tensor, c_TC: Tensor | None, last_DC: Tensor) -> None:
    """Fill h, the states where they are wanted, and the last states."""
    _launch(_forward, inputs, h_TC, c_TC, last_DC)


def backward(inputs: Inputs, c_TC: Tensor, dh_TC: Tensor, dlast_DC: Tensor, into: Gradients) -> None:
    """Fill the gradients."""
    results = (into.u_TKC, into.x_TC, into.parameters_D4C, into.start_DC)
    _launch(_backward, inputs, c_TC, dh_TC, dlast_DC, *results)


def _launch(kernel: Any, inputs: Inputs, *rest: Tensor | None) -> None:
    """Both directions and all documents in one launch; pointers that are None are left out at compile time."""
    if not inputs.documents:
        return
    grid = (inputs.documents, triton.cdiv(inputs.hidden, BLOCK), inputs.directions)
    tensors = (inputs.weight_2C, inputs.bias_2C, inputs.start_DC, inputs.keep_DC, inputs.offsets)
    sizes = (inputs.scale, inputs.hidden, inputs.directions, inputs.u_TKC.shape[1])
    kernel[grid](inputs.u_TKC, inputs.x_TC, *tensors, *rest, *sizes, BLOCK=BLOCK, num_warps=1)


@triton.jit
def _place(offsets):  # type: ignore[no-untyped-def]
    """This program's document, its first token in its direction, the step to the next, and its number of tokens."""
    direction = tl.program_id(2)
    document = tl.num_programs(0) - 1 - tl.program_id(0)  # callers sort by length: the longest come first
    begin, end = tl.load(offsets + document), tl.load(offsets + document + 1)
    first = tl.where(direction == 0, begin, end - 1)
    return document.to(tl.int64), first, 1 - 2 * direction, end - begin


@triton.jit  # type: ignore[untyped-decorator]
def _row(u, x, token, channel, C, inside, scale, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Candidate, both gates' inputs and the skip input of a token."""
    row = u + token * (K * C) + channel
    candidate = tl.load(row, inside, 0.0).to(tl.float32)
    forget = tl.load(row + C, inside, 0.0).to(tl.float32)
    reset = tl.load(row + 2 * C, inside, 0.0).to(tl.float32)
    if K == 4:
        skip = tl.load(row + 3 * C, inside, 0.0).to(tl.float32)
    elif x is not None:
        skip = tl.load(x + token * C + channel, inside, 0.0).to(tl.float32) * scale
    else:
        skip = tl.zeros_like(candidate)
    return candidate, forget, reset, skip


@triton.jit
def _parameters(weight, bias, channel, C, inside):  # type: ignore[no-untyped-def]
    """v and b of the forget gate, then of the reset gate."""
    forget_v = tl.load(weight + channel, inside, 0.0).to(tl.float32)
    reset_v = tl.load(weight + C + channel, inside, 0.0).to(tl.float32)
    forget_b = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    reset_b = tl.load(bias + C + channel, inside, 0.0).to(tl.float32)
    return forget_v, forget_b, reset_v, reset_b


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    u, x, weight, bias, start, keep, offsets, h, c, last,
    scale, hidden, directions, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The recurrence of a block of channels over one document."""
    document, token, step, length = _place(offsets)
    C = hidden * directions
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < hidden
    channel = tl.program_id(2) * hidden + lane
    forget_v, forget_b, reset_v, reset_b = _parameters(weight, bias, channel, C, inside)
    state = tl.zeros([BLOCK], tl.float32)
    if start is not None:
        state = tl.load(start + document * C + channel, inside, 0.0).to(tl.float32)
    mask = tl.full([BLOCK], 1.0, tl.float32)
    if keep is not None:
        mask = tl.load(keep + document * C + channel, inside, 0.0).to(tl.float32)
    candidate, forget, reset, skip = _row(u, x, token, channel, C, lane < tl.where(length > 0, hidden, 0), scale, K)
    for t in range(length):
        ahead = _row(u, x, token + step, channel, C, lane < tl.where(t + 1 < length, hidden, 0), scale, K)
        f = tl.sigmoid(forget + forget_v * state + forget_b)
        r = tl.sigmoid(reset + reset_v * state + reset_b)
        state = candidate + (state - candidate) * f
        output = skip + (state - skip) * (mask * r)
        tl.store(h + token * C + channel, output.to(h.dtype.element_ty), inside)
        if c is not None:
            tl.store(c + token * C + channel, state, inside)
        candidate, forget, reset, skip = ahead
        token += step
    tl.store(last + document * C + channel, state, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    u, x, weight, bias, start, keep, offsets, c, dh, dlast, du, dx, dparameters, dstart,
    scale, hidden, directions, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The chain rule, from the document's last step to its first; the gates are computed again from c."""
    document, token, step, length = _place(offsets)
    C = hidden * directions
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < hidden
    channel = tl.program_id(2) * hidden + lane
    forget_v, forget_b, reset_v, reset_b = _parameters(weight, bias, channel, C, inside)
    initial = tl.zeros([BLOCK], tl.float32)
    if start is not None:
        initial = tl.load(start + document * C + channel, inside, 0.0).to(tl.float32)
    mask = tl.full([BLOCK], 1.0, tl.float32)
    if keep is not None:
        mask = tl.load(keep + document * C + channel, inside, 0.0).to(tl.float32)
    dstate = tl.load(dlast + document * C + channel, inside, 0.0)
    dforget_v, dforget_b = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    dreset_v, dreset_b = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    token += step * (length - 1)
    state = tl.load(c + token * C + channel, lane < tl.where(length > 0, hidden, 0), 0.0)
    for t in range(length):
        earlier = tl.load(c + (token - step) * C + channel, lane < tl.where(t + 1 < length, hidden, 0), 0.0)
        before = tl.where(t + 1 < length, earlier, initial)
        candidate, forget, reset, skip = _row(u, x, token, channel, C, inside, scale, K)
        grad = tl.load(dh + token * C + channel, inside, 0.0).to(tl.float32)
        f = tl.sigmoid(forget + forget_v * before + forget_b)
        r = tl.sigmoid(reset + reset_v * before + reset_b)
        dreset = grad * mask * (state - skip) * r * (1.0 - r)
        dskip = grad * (1.0 - mask * r)
        dstate += grad * mask * r
        dforget = dstate * (before - candidate) * f * (1.0 - f)
        row = du + token * (K * C) + channel
        tl.store(row, (dstate * (1.0 - f)).to(du.dtype.element_ty), inside)
        tl.store(row + C, dforget.to(du.dtype.element_ty), inside)
        tl.store(row + 2 * C, dreset.to(du.dtype.element_ty), inside)
        if K == 4:
            tl.store(row + 3 * C, dskip.to(du.dtype.element_ty), inside)
        elif dx is not None:
            tl.store(dx + token * C + channel, (dskip * scale).to(dx.dtype.element_ty), inside)
        dforget_v += dforget * before
        dreset_v += dreset * before
        dforget_b += dforget
        dreset_b += dreset
        dstate = dstate * f + dforget * forget_v + dreset * reset_v
        state = before
        token -= step
    share = dparameters + document * (4 * C) + channel
    tl.store(share, dforget_v, inside)
    tl.store(share + C, dreset_v, inside)
    tl.store(share + 2 * C, dforget_b, inside)
    tl.store(share + 3 * C, dreset_b, inside)
    tl.store(dstart + document * C + channel, dstate, inside)
