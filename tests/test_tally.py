from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType

from corpuscore.records import Receipt
from corpuscore.tally import Progress, Tally


def receipt_of(work_id: str) -> Receipt:
    """A receipt with two documents, of which one was rejected."""
    return Receipt(work_id, "/a.jsonl", "1", "part", "0", 1, 2, 1, 1, 0, {}, 1, 1, 0.1, {}, "worker")


def _calls(action: Callable[[], None]) -> int:
    """Python functions called, and generators resumed, by an action."""
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def test_a_partition_that_ends_costs_the_same_among_many() -> None:
    """Ten times as many partitions are ten times as much bookkeeping, not a hundred times."""

    def end(count: int) -> None:
        tally = Tally(count, lambda _: None)
        for _ in range(count):
            tally.add(receipt_of("1"))

    few, many = _calls(lambda: end(200)), _calls(lambda: end(2_000))
    assert many < 15 * few


def test_progress_is_told_a_few_times_a_second_at_the_most() -> None:
    """However many partitions end, there are five reports a second; the sums are those of all of them."""
    told: list[Progress] = []
    tally = Tally(4_000, told.append)
    began = time.monotonic()
    for _ in range(2_000):
        tally.add(receipt_of("1"))
    assert 1 <= len(told) <= 5 * (time.monotonic() - began) + 1
    assert (tally.progress().done, tally.progress().rows, tally.progress().rejected) == (2_000, 4_000, 2_000)
