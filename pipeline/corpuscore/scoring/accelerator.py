"""What every backend on a GPU needs: passes queued without waiting, and CUDA's errors in this package's words.

    slot -> (copy) -> forward pass -> (copy) -> slot, event recorded        all queued on one stream
                                                          `collect` waits for this event alone

The next pass is queued behind while a result is on its way. On device="cpu" the same code runs without pinning and
events, which is how its logic is tested where there is no GPU.

Shape suffixes: T tokens, S sequences, H heads, E features of a head, L labels.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.errors import BrokenProcess

_log = logging.getLogger(__name__)

#: Exit status of a process whose CUDA context is broken; every later call in it would fail.
BROKEN_CONTEXT = 70
#: Free memory that tests on a CPU plan with.
_CPU_BYTES = 2**30
#: A budget is a multiple of this, so that full packs have one of few sizes, and never below the other.
TOKEN_STEP = 4_096
_SMALLEST_TOKENS = 512
#: The flash kernel needs Ampere, half precision, and heads of at most 256 features in multiples of 8.
_FLASH_CAPABILITY = (8, 0)
_FLASH_DTYPES = (torch.float16, torch.bfloat16)
_FLASH_WIDEST, _FLASH_MULTIPLE = 256, 8
#: Setting this to 0 keeps the flash kernel off, for tests and for comparing.
FLASH_VARIABLE = "CORPUSCORE_FLASH"
#: What those say who have no exception type for their lack of memory: cuBLAS, CUDA for pinned memory, and the CPU.
_MEMORY_ENDED = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)


@dataclass(slots=True)
class Slot:
    """A place for a pass under way.

    Attributes:
        numbers: Host buffer of what goes in, int32, pinned on a GPU.
        rows_SL: Host buffer of the result, float32, likewise.
        done: Passed when the result has arrived; None on the CPU, where it has when the call returns.
    """

    numbers: torch.Tensor
    rows_SL: torch.Tensor
    done: torch.cuda.Event | None

    def room(self, count: int) -> torch.Tensor:
        """The first `count` numbers of the buffer; it keeps the size of the largest pass."""
        if len(self.numbers) < count:
            self.numbers = torch.empty(count, dtype=torch.int32, pin_memory=self.done is not None)
        return self.numbers[:count]

    def take(self, rows_SL: torch.Tensor) -> None:
        """Queue the copy of a result into the buffer, and the event behind it."""
        if len(self.rows_SL) < len(rows_SL):
            self.rows_SL = torch.empty(rows_SL.shape, dtype=torch.float32, pin_memory=self.done is not None)
        self.rows_SL[: len(rows_SL)].copy_(rows_SL, non_blocking=True)
        if self.done is not None:
            self.done.record()


class Passes:
    """The forward passes that are under way on one device.

    A slot is used again when its result has been collected. One whose pass failed, or is never collected, is dropped:
    torch keeps the memory of a pinned buffer from others until the copies that were queued with it are done.

    Args:
        device: cuda; cpu runs the same logic, for tests.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._free: list[Slot] = []  # as many are made as there ever are passes under way
        self._queueing = threading.Lock()  # copy in, run and copy out of one pass stand together on the stream

    @torch.inference_mode()
    def submit(self, sequences: int, run: Callable[[Slot], torch.Tensor]) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pass, and return what waits for its rows; thread-safe.

        Args:
            sequences: S; rows behind them are dropped.
            run: Fills the slot's numbers and queues the pass: float32 [at least S, L] on the device.

        Raises:
            MemoryError: The device's memory does not hold the pass; its slot is given up, as it may be in use still.
            BrokenProcess: The CUDA context is broken, and there is no nanny to start a new process.
        """
        with self._queueing, translated():
            slot = self._free.pop() if self._free else self._slot()
            slot.take(run(slot)[:sequences])
        return partial(self._collect, slot, sequences)

    def _collect(self, slot: Slot, sequences: int) -> npt.NDArray[np.float32]:
        with translated():
            if slot.done is not None:
                slot.done.synchronize()
            rows_SL: npt.NDArray[np.float32] = slot.rows_SL[:sequences].numpy().copy()
        self._free.append(slot)
        return rows_SL

    def _slot(self) -> Slot:
        event = torch.cuda.Event() if self._device == "cuda" else None  # type: ignore[no-untyped-call]
        return Slot(torch.empty(0, dtype=torch.int32), torch.empty(0, 0), event)


def free_bytes(device: str) -> int:
    """Memory that a plan of passes may count on."""
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else _CPU_BYTES


def fitting_tokens(bytes_a_token: int, free: int, most: int) -> int:
    """Tokens of a pack whose activations take at most half of the free memory.

    Args:
        bytes_a_token: What lives at once for a token, at the widest point of the network.
        free: What `free_bytes` says.
        most: Above this, larger packs are no faster.
    """
    return max(_SMALLEST_TOKENS, min(most, free // 2 // bytes_a_token // TOKEN_STEP * TOKEN_STEP))


def has_flash(device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether the flash kernel runs here for heads of this width: from Ampere on, unless CORPUSCORE_FLASH is 0.

    Args:
        device: cpu or cuda.
        dtype: Of queries, keys and values.
        width: Features of a head.
    """
    if device != "cuda" or os.environ.get(FLASH_VARIABLE) == "0":
        return False
    fits = dtype in _FLASH_DTYPES and width % _FLASH_MULTIPLE == 0 and width <= _FLASH_WIDEST
    return fits and torch.cuda.get_device_capability() >= _FLASH_CAPABILITY


def flash_attention(
    query_THE: torch.Tensor,
    key_THE: torch.Tensor,
    value_THE: torch.Tensor,
    offsets: torch.Tensor,
    longest: int,
    *,
    scale: float | None = None,
    window: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Attention within documents that lie end to end, [T, H, E], where `has_flash` says that it runs.

    A document's keys are never split: else the order of its sums would depend on the longest of its neighbours.

    Args:
        query_THE, key_THE, value_THE: Of T tokens, H heads and E features of a head.
        offsets: int32 [S + 1] on the device.
        longest: No document has more tokens.
        scale: Of the products; None: 1 / sqrt(E).
        window: How many tokens to the left and to the right are seen; -1: all.

    Source: num_splits in the docstring of torch.nn.attention.varlen.varlen_attn
    """
    from torch.nn.attention.varlen import varlen_attn

    lengths = (offsets, offsets, longest, longest)
    mixed_THE = varlen_attn(query_THE, key_THE, value_THE, *lengths, scale=scale, window_size=window, num_splits=1)
    assert isinstance(mixed_THE, torch.Tensor)  # noqa: S101  (a tuple only where more was asked for)
    return mixed_THE


@contextmanager
def translated() -> Iterator[None]:
    """Out of memory becomes MemoryError, which the engine answers; a broken CUDA context is the end of the process.

    Raises:
        MemoryError: The device's memory, or the host's, does not hold what was asked for.
        BrokenProcess: The CUDA context is broken, and there is no nanny to start a new process.
    """
    try:
        yield
    except RuntimeError as error:
        if _memory_ended(error):
            raise MemoryError(str(error)) from error
        if isinstance(error, torch.AcceleratorError):
            _give_up(error)
        raise


def _memory_ended(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised in answer to (such as the end of a CUDA graph's capture), says so."""
    if error is None:
        return False
    says = any(words in str(error) for words in _MEMORY_ENDED)
    return says or isinstance(error, torch.OutOfMemoryError) or _memory_ended(error.__context__)


def _give_up(error: BaseException) -> NoReturn:
    """Leave the process where a nanny starts a new one; else say that someone must."""
    if _under_nanny():
        _log.critical("CUDA failed for good (%s); this process ends with status %d.", error, BROKEN_CONTEXT)
        logging.shutdown()
        os._exit(BROKEN_CONTEXT)
    raise BrokenProcess(
        f"CUDA failed for good ({error})",
        rule="after such an error every CUDA call of the process fails",
        next_step="restart this process (in a notebook, the kernel) and run again",
    ) from error


def _under_nanny() -> bool:
    """Whether this process is a Dask worker's that a nanny watches; the engine's threads are none of the worker's."""
    distributed = sys.modules.get("distributed.worker")
    return distributed is not None and any(worker.nanny for worker in distributed.Worker._instances)
