"""The SRU recurrence on the CPU: sru.cpp, compiled on first use.

Shape suffixes as in gates.py.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace

import torch
from torch import Tensor

from corpuscore.scoring.kernels import build
from corpuscore.scoring.srupp.recurrence import autograd
from corpuscore.scoring.srupp.recurrence.autograd import Gradients, Inputs
from corpuscore.scoring.srupp.recurrence.gates import Gates

_SOURCE = "sru.cpp"


def missing() -> str | None:
    """Why this path cannot run here, or None."""
    return None if build.load_library(_SOURCE) else build.why_missing(_SOURCE)


def recurrence(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """As `gates.reference`, computed in fp32."""
    start_DC = None if gates.start_DC is None else gates.start_DC.float()
    full = replace(gates, weight_2C=gates.weight_2C.float(), bias_2C=gates.bias_2C.float(), start_DC=start_DC)
    wide_TC = None if x_TC is None else x_TC.float()
    h_TC, last_DC = autograd.recurrence(sys.modules[__name__], u_TKC.float(), wide_TC, full, offsets)
    return h_TC.to(u_TKC.dtype if x_TC is None else torch.promote_types(u_TKC.dtype, x_TC.dtype)), last_DC


def forward(inputs: Inputs, h_TC: Tensor, c_TC: Tensor | None, last_DC: Tensor) -> None:
    """Fill h, the states where they are wanted, and the last states."""
    _call("sru_forward", inputs, h_TC, c_TC, last_DC)


def backward(inputs: Inputs, c_TC: Tensor, dh_TC: Tensor, dlast_DC: Tensor, into: Gradients) -> None:
    """Fill the gradients."""
    results = (into.u_TKC, into.x_TC, into.parameters_D4C, into.start_DC)
    _call("sru_backward", inputs, c_TC, dh_TC, dlast_DC, *results)


def _call(name: str, inputs: Inputs, *rest: Tensor | None) -> None:
    """One of the two functions of sru.cpp: inputs, sizes, the rest, and torch's number of threads."""
    parameters = (inputs.weight_2C, inputs.bias_2C, inputs.start_DC, inputs.keep_DC, inputs.offsets)
    sizes = (inputs.documents, inputs.hidden, inputs.directions, inputs.u_TKC.shape[1])
    getattr(build.load_library(_SOURCE), name)(
        _pointer(inputs.u_TKC),
        _pointer(inputs.x_TC),
        ctypes.c_float(inputs.scale),
        *map(_pointer, parameters),
        *map(ctypes.c_int64, sizes),
        *map(_pointer, rest),
        ctypes.c_int(torch.get_num_threads()),
    )


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
