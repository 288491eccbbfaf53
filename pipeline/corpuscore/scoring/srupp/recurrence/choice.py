"""The fastest path that this machine has for the SRU recurrence.

Shape suffixes as in gates.py.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from torch import Tensor

from corpuscore.scoring.srupp.recurrence import native
from corpuscore.scoring.srupp.recurrence.gates import Gates, Recurrence, stepwise

log = logging.getLogger(__name__)


def recurrence(u_TKC: Tensor, x_TC: Tensor | None, gates: Gates, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """`gates.reference` by the fastest path that this machine has; same arguments and results, on any device."""
    return _path(u_TKC.device.type)(u_TKC, x_TC, gates, offsets)


@cache
def _path(device: str) -> Recurrence:
    """The fast path of a kind of device; that there is none is announced, once."""
    missing = _missing(device)
    if missing:
        log.warning("SRU recurrence: no fast path on %s (%s); a loop over time runs, much slower.", device, missing)
        return stepwise
    if device == "cpu":
        return native.recurrence
    from corpuscore.scoring.srupp.recurrence import (
        triton_path,  # it needs triton, which CPU builds of torch come without
    )

    return triton_path.recurrence


def _missing(device: str) -> str | None:
    """Why a kind of device has no fast path, or None."""
    if device == "cpu":
        return native.missing()
    if device == "cuda":
        return None if find_spec("triton") else "triton is not installed; it comes with torch's CUDA builds"
    return "no kernel is written for it"
