from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest

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


def test_documents_of_partitions_in_work_count() -> None:
    """One big partition moves, too, and tells how long the rest takes where the number of documents is known."""
    tally = Tally(1, rows=100)
    tally.in_work(0, "loading the model")
    assert (tally.progress().phase, tally.progress().share, tally.progress().eta_seconds) == (
        "loading the model",
        0.0,
        None,
    )
    tally.in_work(25, "first documents")
    now = tally.progress()
    assert (now.phase, now.rows, now.share) == ("", 25, 0.25)
    assert now.eta_seconds == pytest.approx(3 * 25 / now.rows_per_second)
    tally.in_work(100, "")
    tally.add(replace(receipt_of("1"), rows=100))
    assert (tally.progress().rows, tally.progress().share, tally.progress().eta_seconds) == (100, 1.0, 0.0)


def test_what_is_left_is_guessed_from_what_ended() -> None:
    """Where the number of documents is not known: as many in each partition as in those that ended."""
    tally = Tally(4)
    tally.in_work(3, "")
    assert (tally.progress().eta_seconds, tally.progress().share) == (None, 0.0)
    tally.add(receipt_of("1"))
    now = tally.progress()
    assert (now.rows, now.share) == (3, 0.25)
    assert now.eta_seconds == pytest.approx(5 / now.rows_per_second)


def test_progress_is_told_a_few_times_a_second_at_the_most() -> None:
    """However many partitions end, there are five reports a second; the sums are those of all of them."""
    told: list[Progress] = []
    tally = Tally(4_000, told.append)
    began = time.monotonic()
    for _ in range(2_000):
        tally.add(receipt_of("1"))
    assert 1 <= len(told) <= 5 * (time.monotonic() - began) + 1
    assert (tally.progress().done, tally.progress().rows, tally.progress().rejected) == (2_000, 4_000, 2_000)
