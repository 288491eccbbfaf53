"""The SRU recurrence on the CPU: sru.cpp, compiled on first use, with its gradient.

Shape suffixes as in sru.py.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.scoring.nn import native

if TYPE_CHECKING:
    from pipeline.scoring.nn.sru import Gates

_SOURCE = "sru.cpp"


def missing() -> str | None:
    """Why this path cannot run here, or None."""
    return None if native.load_library(_SOURCE) else native.why_missing(_SOURCE)


def recurrence(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """As `sru.reference`, computed in fp32; differentiable once."""
    x_TC = None if u_TKC.shape[1] == 4 else x_TC
    tensors = (u_TKC, x_TC, gates.weight_2C, gates.bias_2C, gates.start_DC, gates.keep_DC)
    ready = [None if tensor is None else tensor.float().contiguous() for tensor in tensors]
    given = (*ready, offsets.contiguous(), gates.directions, gates.scale)
    h_TC, last_DC = _Recurrence.apply(*given)  # type: ignore[no-untyped-call]
    dtype = u_TKC.dtype if x_TC is None else torch.promote_types(u_TKC.dtype, x_TC.dtype)
    return h_TC.to(dtype), last_DC.to(dtype)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u_TKC: Tensor,
        x_TC: Tensor | None,
        weight_2C: Tensor,
        bias_2C: Tensor,
        start_DC: Tensor | None,
        keep_DC: Tensor | None,
        offsets: Tensor,
        directions: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        tokens, _, channels = u_TKC.shape
        h_TC, last_DC = u_TKC.new_empty(tokens, channels), u_TKC.new_empty(len(offsets) - 1, channels)
        c_TC = u_TKC.new_empty(tokens, channels) if any(ctx.needs_input_grad) else None
        inputs = (u_TKC, x_TC, scale, weight_2C, bias_2C, start_DC, keep_DC, offsets)
        _call("sru_forward", inputs, directions, h_TC, c_TC, last_DC)
        ctx.save_for_backward(u_TKC, x_TC, weight_2C, bias_2C, start_DC, keep_DC, offsets, c_TC)
        ctx.directions, ctx.scale = directions, scale
        return h_TC, last_DC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh_TC: Tensor, dlast_DC: Tensor) -> tuple[Tensor | None, ...]:
        u_TKC, x_TC, weight_2C, bias_2C, start_DC, keep_DC, offsets, c_TC = ctx.saved_tensors
        documents, channels = dlast_DC.shape
        du_TKC, dstart_DC = torch.empty_like(u_TKC), torch.empty_like(dlast_DC)
        dx_TC = None if x_TC is None else torch.empty_like(x_TC)
        shares_D4C = u_TKC.new_empty(documents, 4, channels)
        inputs = (u_TKC, x_TC, ctx.scale, weight_2C, bias_2C, start_DC, keep_DC, offsets)
        given = (c_TC, dh_TC.contiguous(), dlast_DC.contiguous())
        _call("sru_backward", inputs, ctx.directions, *given, du_TKC, dx_TC, shares_D4C, dstart_DC)
        dweight_2C, dbias_2C = shares_D4C.sum(0).view(2, 2 * channels)
        dstart = None if start_DC is None else dstart_DC
        return du_TKC, dx_TC, dweight_2C, dbias_2C, dstart, None, None, None, None


def _call(name: str, inputs: tuple[Any, ...], directions: int, *rest: Tensor | None) -> None:
    """One of the two functions of sru.cpp: its inputs, the sizes, the rest, and torch's number of threads."""
    u_TKC, offsets = inputs[0], inputs[-1]
    sizes = (len(offsets) - 1, u_TKC.shape[2] // directions, directions, u_TKC.shape[1])
    head = [_pointer(value) if isinstance(value, Tensor | None) else ctypes.c_float(value) for value in inputs]
    body = [ctypes.c_int64(size) for size in sizes]
    tail = [_pointer(tensor) for tensor in rest]
    getattr(native.load_library(_SOURCE), name)(*head, *body, *tail, ctypes.c_int(torch.get_num_threads()))


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
