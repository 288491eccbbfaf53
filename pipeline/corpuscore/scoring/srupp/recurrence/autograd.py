"""The SRU recurrence as one step of autograd, for any kernel that computes it forward and backward.

Shape suffixes as in gates.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corpuscore.scoring.srupp.recurrence.gates import Gates


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a kernel reads: contiguous tensors of one device; shapes as in `gates.reference`."""

    directions: int
    scale: float
    u_TKC: Tensor
    x_TC: Tensor | None
    weight_2C: Tensor
    bias_2C: Tensor
    start_DC: Tensor | None
    keep_DC: Tensor | None
    offsets: Tensor

    @property
    def hidden(self) -> int:
        """Channels of a direction."""
        return self.u_TKC.shape[2] // self.directions

    @property
    def documents(self) -> int:
        """D."""
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a backward kernel writes; parameters_D4C is each document's share of dweight and dbias, in fp32."""

    u_TKC: Tensor
    x_TC: Tensor | None
    parameters_D4C: Tensor
    start_DC: Tensor


class Kernels(Protocol):
    """A forward and a backward kernel."""

    def forward(self, inputs: Inputs, h_TC: Tensor, c_TC: Tensor | None, last_DC: Tensor) -> None:
        """Fill h, the states where they are wanted for the way back, and the last states."""
        ...

    def backward(self, inputs: Inputs, c_TC: Tensor, dh_TC: Tensor, dlast_DC: Tensor, into: Gradients) -> None:
        """Fill the gradients."""
        ...


def recurrence(
    kernels: Kernels, u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """`gates.reference` through kernels; h has the wider type of u and x, states are fp32; differentiable once."""
    x_TC = None if u_TKC.shape[1] == 4 else x_TC
    tensors = (u_TKC, x_TC, gates.weight_2C, gates.bias_2C, gates.start_DC, gates.keep_DC, offsets.to(u_TKC.device))
    ready = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    h_TC, last_DC = _Recurrence.apply(kernels, gates.directions, gates.scale, *ready)  # type: ignore[no-untyped-call]
    return h_TC, last_DC


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, directions: int, scale: float, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs = Inputs(directions, scale, *tensors)  # type: ignore[arg-type]
        tokens, _, channels = inputs.u_TKC.shape
        u_TKC, x_TC = inputs.u_TKC, inputs.x_TC
        h_type = u_TKC.dtype if x_TC is None else torch.promote_types(u_TKC.dtype, x_TC.dtype)
        h_TC = u_TKC.new_empty(tokens, channels, dtype=h_type)
        c_TC = torch.empty_like(h_TC, dtype=torch.float32) if any(ctx.needs_input_grad) else None
        last_DC = u_TKC.new_empty(inputs.documents, channels, dtype=torch.float32)
        kernels.forward(inputs, h_TC, c_TC, last_DC)
        ctx.save_for_backward(*tensors, c_TC)
        ctx.kernels, ctx.directions, ctx.scale = kernels, directions, scale
        return h_TC, last_DC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh_TC: Tensor, dlast_DC: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, c_TC = ctx.saved_tensors
        inputs = Inputs(ctx.directions, ctx.scale, *tensors)
        documents, channels = dlast_DC.shape
        into = Gradients(
            torch.empty_like(inputs.u_TKC),
            None if inputs.x_TC is None else torch.empty_like(inputs.x_TC),
            dlast_DC.new_empty(documents, 4, channels),
            torch.empty_like(dlast_DC),
        )
        ctx.kernels.backward(inputs, c_TC, dh_TC.contiguous(), dlast_DC.contiguous(), into)
        dweight_2C, dbias_2C = into.parameters_D4C.sum(0).view(2, 2 * channels)
        dstart_DC = None if inputs.start_DC is None else into.start_DC
        return None, None, None, into.u_TKC, into.x_TC, dweight_2C, dbias_2C, dstart_DC, None, None
