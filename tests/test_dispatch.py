from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from corpuscore.dispatch import Dispatch, Progress, ProgressCallback
from corpuscore.job import ReadOptions, ScoreOptions
from corpuscore.records import Receipt, ScorerInfo
from corpuscore.scoring.partition import ScoringContext


def _receipt(work_id: str) -> Receipt:
    return Receipt(work_id, "/a.jsonl", "1", "part", "0", 1, 2, 1, 1, 0, {}, 1, 1, 0.1, {}, "worker")


def _dispatch(client: Any, store: Path, progress: ProgressCallback | None = None) -> Dispatch:
    context = ScoringContext(
        str(store), ReadOptions(), ScoreOptions(), ScorerInfo(("joy",), "softmax", "0", "bert", "fp32", "tiny")
    )
    return Dispatch(client, context, group="score-test", attempt="1", progress=progress)


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


def test_a_partition_that_ends_costs_the_same_among_many(tmp_path: Path) -> None:
    """Ten times as many partitions are ten times as much bookkeeping, not a hundred times."""

    def end(count: int) -> None:
        dispatch = _dispatch(None, tmp_path, progress=lambda _: None)
        for _ in range(count):
            dispatch._done(_receipt("1"))

    few, many = _calls(lambda: end(200)), _calls(lambda: end(2_000))
    assert many < 15 * few


def test_progress_is_told_a_few_times_a_second_at_the_most(tmp_path: Path) -> None:
    """However many partitions end, there are five reports a second; the sums are those of all of them."""
    told: list[Progress] = []
    dispatch = _dispatch(None, tmp_path, progress=told.append)
    began = time.monotonic()
    for _ in range(2_000):
        dispatch._done(_receipt("1"))
    assert 1 <= len(told) <= 5 * (time.monotonic() - began) + 1
    assert (dispatch.progress().done, dispatch.progress().rows, dispatch.progress().rejected) == (2_000, 4_000, 2_000)
