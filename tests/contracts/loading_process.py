"""A loader in a process of its own, for tests that race or kill it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

from corpuscore.records import CheckedPart
from corpuscore.warehouse import load_parts
from tests.parts import KEPT, LABELS, PLANNED_AT, opened
from tests.servers.warehouses import Target


def start(target: Target, parts: Sequence[CheckedPart], stall: Path | None = None) -> BaseProcess:
    """Start a process that loads; with `stall` it stops in the middle, having made that file."""
    process = multiprocessing.get_context("spawn").Process(target=_load, args=(target, parts, stall))
    process.start()
    return process


def _load(target: Target, parts: Sequence[CheckedPart], stall: Path | None) -> None:
    open_part = opened if stall is None else _stalling(str(parts[-1].part), stall)
    with target.open(patience_seconds=60) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load_parts(warehouse, "run", "model", LABELS, KEPT, parts, open_part, planned_at=PLANNED_AT)


def _stalling(last: str, mark: Path) -> Callable[[str], BinaryIO]:
    def open_part(path: str) -> BinaryIO:
        if path == last:
            mark.touch()
            time.sleep(600)
        return opened(path)

    return open_part
