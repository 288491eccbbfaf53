"""What all GPU backends share: passes under way, slots that are used again, and CUDA's errors in words of ours."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker
from torch.utils._python_dispatch import TorchDispatchMode

from corpuscore.errors import ClusterUnavailable
from corpuscore.scoring import accelerator
from corpuscore.scoring.accelerator import (
    FLASH_VARIABLE,
    Passes,
    Slot,
    fitting_tokens,
    flash_attention,
    has_flash,
    translated,
)


def doubled(numbers: list[int], seen: list[Slot] | None = None) -> Callable[[Slot], torch.Tensor]:
    """A pass that doubles numbers, and keeps the slot that it was given."""

    def run(slot: Slot) -> torch.Tensor:
        if seen is not None:
            seen.append(slot)
        place = slot.room(len(numbers))
        place.numpy()[:] = numbers
        return place[:, None].float() * 2

    return run


def test_results_may_be_collected_in_any_order() -> None:
    """Each pass has a slot of its own until its result is collected; then the slot serves the next pass."""
    passes, seen = Passes("cpu"), list[Slot]()
    first, second = passes.submit(3, doubled([1, 2, 3], seen)), passes.submit(1, doubled([7], seen))
    assert second().tolist() == [[14]]
    third = passes.submit(4, doubled([4, 5, 6, 7], seen))
    assert first().tolist() == [[2], [4], [6]]
    assert third().tolist() == [[8], [10], [12], [14]]
    assert seen[0] is not seen[1]
    assert seen[2] is seen[1]


def test_rows_behind_the_sequences_are_dropped() -> None:
    """A pass of a fixed shape may give more rows than there are sequences."""
    assert Passes("cpu").submit(2, doubled([1, 2, 3, 4]))().tolist() == [[2], [4]]


def test_rows_outlive_their_slot() -> None:
    """What was collected does not change when the slot is filled again."""
    passes = Passes("cpu")
    rows = passes.submit(1, doubled([1]))()
    passes.submit(1, doubled([5]))()
    assert rows.tolist() == [[2]]


def test_several_streams_share_a_device() -> None:
    """Passes from many threads keep their numbers apart."""
    passes = Passes("cpu")

    def one(number: int) -> bool:
        return bool((passes.submit(50, doubled([number] * 50))() == 2 * number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))


@dataclass
class Signal:
    """A CUDA event that counts, since there is none without a GPU."""

    recorded: int = 0
    waited: int = 0

    def record(self) -> None:
        """Queue it."""
        self.recorded += 1

    def synchronize(self) -> None:
        """Wait for it."""
        self.waited += 1


def test_queueing_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event of a pass is recorded behind its copy and waited for when its own result is wanted, and no sooner."""
    events: list[Signal] = []

    def slot(_: Passes) -> Slot:
        events.append(Signal())
        return Slot(torch.empty(8, dtype=torch.int32), torch.empty(8, 1), events[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(Passes, "_slot", slot)
    passes = Passes("cpu")
    first, second = passes.submit(2, doubled([1, 2])), passes.submit(2, doubled([3, 4]))
    assert events == [Signal(recorded=1), Signal(recorded=1)]
    assert first().tolist() == [[2], [4]]
    assert events == [Signal(recorded=1, waited=1), Signal(recorded=1)]
    assert second().tolist() == [[6], [8]]


def no_memory(_: Slot) -> torch.Tensor:
    """A pass that a GPU has no room for."""
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_slot_of_a_failed_pass_is_given_up() -> None:
    """The GPU may still write to it: no later pass gets it. Nor is it kept: its buffers go with the error."""
    passes, seen = Passes("cpu"), list[Slot]()
    passes.submit(1, doubled([1], seen))()
    buffers = weakref.ref(seen[0].numbers)

    def fail(slot: Slot) -> torch.Tensor:
        assert slot is seen.pop()
        return no_memory(slot)

    with pytest.raises(MemoryError):
        passes.submit(1, fail)
    gc.collect()
    assert buffers() is None
    for number in range(3):
        assert passes.submit(1, doubled([number], seen))().tolist() == [[2 * number]]
    assert len({id(slot) for slot in seen}) == 1


def test_a_pass_that_nobody_collects_costs_its_slot_only() -> None:
    """A stream that is closed early leaves passes under way; what comes after has slots of its own."""
    passes, seen = Passes("cpu"), list[Slot]()
    left = passes.submit(1, doubled([1], seen))
    buffers = weakref.ref(seen.pop().numbers)
    del left
    gc.collect()
    assert buffers() is None
    assert passes.submit(1, doubled([2]))().tolist() == [[4]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_out_of_memory_has_one_type(error: RuntimeError) -> None:
    """Whichever library ran out of it, the engine is told by a MemoryError."""
    with pytest.raises(MemoryError, match=r"(?i)memory|alloc"), translated():
        raise error


def test_the_cpu_runs_out_of_memory_too() -> None:
    """torch's own allocator for the CPU knows a RuntimeError only."""
    with pytest.raises(MemoryError, match="can't allocate memory"), translated():
        torch.empty(2**50)


def capture() -> None:
    """A graph's capture that memory ended: leaving it raises an error of its own."""
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    finally:
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")


def test_a_capture_that_memory_ended_breaks_nothing() -> None:
    """The second error hides the first, and is no broken context."""
    with pytest.raises(MemoryError), translated():
        capture()


def test_other_errors_are_left_alone() -> None:
    """A fault of ours is not taken for the device's."""
    with pytest.raises(RuntimeError, match="shapes"), translated():
        raise RuntimeError("shapes do not match")


def broken() -> None:
    """What CUDA says when its context is gone."""
    with translated():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_broken_context_is_said_where_nobody_starts_a_new_process() -> None:
    """A notebook or a command keeps its process and its state, and is told what to do."""
    with pytest.raises(ClusterUnavailable, match="illegal memory access.*kernel"):
        broken()


def test_a_broken_context_ends_a_worker_that_has_a_nanny() -> None:
    """The nanny starts a new process, in which work goes on; no other process is touched."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        before = client.submit(os.getpid, pure=False).result()
        with pytest.raises(KilledWorker):
            client.submit(broken, pure=False).result()
        assert client.submit(os.getpid, pure=False).result() != before


@pytest.mark.parametrize(
    ("capability", "said", "dtype", "width", "expected"),
    [
        ((8, 0), "", torch.bfloat16, 64, True),
        ((9, 0), "1", torch.float16, 32, True),
        ((7, 5), "", torch.float16, 64, False),
        ((9, 0), "0", torch.bfloat16, 64, False),
        ((9, 0), "", torch.float32, 64, False),
        ((9, 0), "", torch.bfloat16, 12, False),
        ((9, 0), "", torch.bfloat16, 264, False),
    ],
)
def test_the_flash_kernel_is_taken_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    said: str,
    dtype: torch.dtype,
    width: int,
    expected: bool,
) -> None:
    """From Ampere on, in half precision, for the widths that it has; and never where someone switched it off."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setenv(FLASH_VARIABLE, said)
    assert has_flash("cuda", dtype, width) is expected
    assert not has_flash("cpu", dtype, width)


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what each operation was given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, tuple[object, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call, and run it."""
        self.seen.append((str(func), args))
        return func(*args, **(kwargs or {}))


def test_keys_are_never_split() -> None:
    """Else the order of a document's sums would depend on the longest of its neighbours."""
    heads_THE = torch.zeros(6, 2, 8, dtype=torch.float16, device="meta")
    offsets = torch.zeros(3, dtype=torch.int32, device="meta")
    with Calls() as calls:
        flash_attention(heads_THE, heads_THE, heads_THE, offsets, 4)
    ((_, arguments),) = [call for call in calls.seen if "_varlen_attn" in call[0]]
    names = [argument.name for argument in torch.ops.torch_attn._varlen_attn.default._schema.arguments]
    assert dict(zip(names, arguments, strict=False))["num_splits"] == 1


def test_a_budget_follows_the_memory() -> None:
    """Half of what is free, in few sizes, between the least and the most that make sense."""
    assert [fitting_tokens(1_000, free, 262_144) for free in (0, 2**24, 2**40)] == [512, 8_192, 262_144]
    assert fitting_tokens(1_000, accelerator.free_bytes("cpu"), 262_144) == 262_144
