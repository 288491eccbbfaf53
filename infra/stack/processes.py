"""Which processes belong to a home, and how they end.

Parents and process groups are no help: `airflow standalone` leaves its children behind on SIGTERM, and Airflow puts
each task into a group of its own. An environment variable is inherited by all of them and survives their parents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "CORPUSCORE_STACK"

_PATIENCE_SECONDS = 8.0
_SWEEPS = 5


def mark(root: Path) -> dict[str, str]:
    """Environment of a process that belongs to the home at `root`.

    SPT_NOENV keeps setproctitle, which Airflow uses, from writing its titles over the environment.
    """
    return {MARK: str(root), "SPT_NOENV": "1"}


def marked(root: Path) -> Iterator[psutil.Process]:
    """Running processes of this home, without the one that asks."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(root) and process.is_running():
                yield process
        except (psutil.Error, OSError):  # another user's, or gone by now
            continue


def end(root: Path) -> int:
    """End all processes of this home but the one that asks: politely first, and again those born meanwhile.

    Returns:
        How many were ended.
    """
    ended: set[int] = set()
    for _ in range(_SWEEPS):
        processes = list(marked(root))
        if not processes:
            break
        ended.update(process.pid for process in processes)
        _end_all(processes)
    return len(ended)


def _end_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=_PATIENCE_SECONDS)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=_PATIENCE_SECONDS)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()
