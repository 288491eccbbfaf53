"""Processes of a run or of a lane: found by a mark in their environment, which children inherit."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from tests.faults.control import Missed

MARK = "FAULTS_MARK"


def marked(mark: str) -> Iterator[psutil.Process]:
    """Running processes with a mark; zombies have ended."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def workers(mark: str) -> list[psutil.Process]:
    """Those that are Dask workers, started by a nanny; the oldest first."""
    return sorted((item for item in marked(mark) if _is_worker(item)), key=lambda item: item.create_time())


def _is_worker(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
        return "--multiprocessing-fork" in line or line.startswith("dask worker")  # its title, once it runs
    except psutil.Error:
        return False


def kill(process: psutil.Process, sign: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; one that is gone is no error."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


def end(mark: str) -> list[str]:
    """Kill all that run with a mark; what they were."""
    found = []
    for _ in range(5):
        left = list(marked(mark))
        if not left:
            break
        for process in left:
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()[-6:])[:160])
            kill(process)
        psutil.wait_procs(left, timeout=5)
    return found


def ask_for_stacks(mark: str) -> None:
    """Let Python processes write what they are doing, see inside/sitecustomize.py."""
    for process in marked(mark):
        with suppress(psutil.Error):
            if "python" in process.name():
                process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)


def until(met: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is so.

    Raises:
        Missed: It did not come.
    """
    limit = time.monotonic() + seconds
    while not met():
        if time.monotonic() > limit:
            raise Missed(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.02)
