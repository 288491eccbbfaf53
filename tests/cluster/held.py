"""What workers do in place of scoring, so that a test decides when a partition ends; imported by worker processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from distributed import get_worker

from corpuscore.cluster.shown import figures_of
from corpuscore.scoring.partition import ScoringContext
from corpuscore.tasks import Work, run_work

#: Objects with these names hang where their names say.
LOADING, READING = "hangs-loading.jsonl", "hangs-reading.jsonl"


def let_go(store: Path) -> None:
    """Let held work of a work location go on."""
    (store / "go").touch()


def describing_for_ever(model: str, **options: Any) -> None:
    """What a worker does in place of describing a model."""
    threading.Event().wait()


def held_work(work: Work, context: ScoringContext) -> dict[str, Any]:
    """Score when the work location has a file `go`; all but the first partition, which sets out at once."""
    while not (work.partition.uri.endswith("00.jsonl") or Path(context.store.removeprefix("file://"), "go").exists()):
        time.sleep(0.02)
    return run_work(work, context)


def hanging_work(work: Work, context: ScoringContext) -> dict[str, Any]:
    """Score, but for objects that hang for ever, before or after their first figures."""
    if not work.partition.uri.endswith((LOADING, READING)):
        return run_work(work, context)
    worker = get_worker()
    with figures_of(worker).working(str(worker.get_current_task())) as meter:
        if work.partition.uri.endswith(READING):
            meter.busy["read"] = 0.1
        threading.Event().wait()
    raise AssertionError("an event that nobody sets")
