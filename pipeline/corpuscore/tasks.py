"""The Dask tasks: what a worker does with a partition, beside others or alone."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Worker, get_worker

from corpuscore.cluster.shown import figures_of
from corpuscore.errors import CorpuscoreError, CorpusError, to_json, unforeseen
from corpuscore.patience import LOADING, STALL
from corpuscore.records import Partition
from corpuscore.scoring.alone import Limits, score_alone
from corpuscore.scoring.partition import ScoringContext, score_partition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """One partition to score.

    Attributes:
        partition: What to read.
        work_id: Its name.
        alone: 0 beside others; n for the n-th time alone, in processes of its own.
    """

    partition: Partition
    work_id: str
    alone: int = 0

    def __str__(self) -> str:
        return f"{self.partition.uri} [{self.partition.start}:{self.partition.stop}]"


def run_work(work: Work, context: ScoringContext) -> dict[str, Any]:
    """The Dask task: score one partition, and show on the worker how that goes on.

    Returns:
        JSON-ready: `{"receipt": ...}`, or `{"error": ...}`, of which the worker then makes no traceback.
    """
    worker = get_worker()
    figures = figures_of(worker)
    try:
        with figures.working(str(worker.get_current_task())) as meter:
            receipt = score_partition(work.partition, work.work_id, context, worker.address, meter=meter)
    except Exception as error:
        return _failed(work, error)
    figures.rows += receipt.scored
    return {"receipt": receipt.to_json()}


def limits() -> Limits:
    """What a process may take, as this client's configuration says; a worker adds its memory limit.

    Raises:
        ClusterError: What the configuration says is no time.
    """
    return Limits(stall_seconds=STALL.seconds(), loading_seconds=LOADING.seconds())


def run_alone(work: Work, context: ScoringContext, limits: Limits) -> dict[str, Any]:
    """The Dask task for a suspect: score it in processes of its own, which end with this worker, and never end it.

    Returns:
        JSON-ready: `{"receipt": ..., "found": [...]}` with the documents that are rejects for it, or `{"error": ...}`.
    """
    worker = get_worker()
    figures = figures_of(worker)
    allowed = limits.within(memory_limit(worker))
    try:
        with figures.working(str(worker.get_current_task())) as meter:

            def show() -> None:
                meter.busy["alone"] = time.monotonic()  # this worker goes on, whatever its process does

            show()
            done = score_alone(work.partition, work.work_id, context, worker.address, allowed, show)
    except Exception as error:
        return _failed(work, error)
    figures.rows += done.receipt.scored
    return {"receipt": done.receipt.to_json(), "found": list(done.found)}


def _failed(work: Work, error: Exception) -> dict[str, Any]:
    """An error as data; one that is not ours concerns this partition, as far as anybody knows."""
    if not isinstance(error, CorpuscoreError):
        log.debug("%s failed", work, exc_info=error)
        error = unforeseen(CorpusError, f"Scoring {work}", error)
    return {"error": to_json(error)}


def memory_limit(worker: Worker) -> int | None:
    """Bytes at which the worker itself would be ended; None where nobody would."""
    manager = worker.memory_manager
    limit = manager.memory_limit if manager else None
    fraction = dask.config.get("distributed.worker.memory.terminate")
    return int(limit * fraction) if limit and fraction else None
