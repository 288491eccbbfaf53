"""A device without numbers: what a backend queues there waits for none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: torch's device for shapes alone; asking it for a value is an error.
NUMBERLESS = "meta"


class Waiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts copies onto that device, and fails at one that the host waits for.

    Attributes:
        copies: How many there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, and look at what it copied."""
        result = func(*args, **(kwargs or {}))
        arrives = isinstance(result, Tensor) and result.is_meta and args and isinstance(args[0], Tensor)
        if arrives and not args[0].is_meta and "_to_copy" in str(func):
            self.copies += 1
            assert (kwargs or {}).get("non_blocking"), f"a copy of {tuple(args[0].shape)} waits for the passes before"
        return result
