"""A Dask cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.faults.processes import MARK, end, kill, until, workers
from tests.servers.s3 import free_port

_WORKERS = 2


class Cluster:
    """`dask scheduler` and `dask worker` as processes of their own, always at the same address.

    Args:
        folder: For logs and the workers' files.
        environment: Of its processes.
        memory_limit: Of a worker; 0: none.

    Attributes:
        mark: Of its processes.
        address: Of its scheduler.
        tmp: Its workers' TMPDIR.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], memory_limit: str = "0") -> None:
        self.mark = mark = f"lane-{uuid.uuid4().hex[:8]}"
        self._memory_limit = memory_limit
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True)
        self._folder = folder
        self._environment = {**environment, MARK: mark, "TMPDIR": str(self.tmp)}
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._nannies: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start what does not run."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            self.start_scheduler()
        if self._nannies is None or self._nannies.poll() is not None or len(self.workers()) < _WORKERS:
            self.start_workers()

    def start_scheduler(self) -> None:
        """Start a scheduler at the address."""
        host, port = self.address.removeprefix("tcp://").split(":")
        self._scheduler = self._spawn("scheduler", "--host", host, "--port", port, "--no-dashboard", "--no-show")

    def start_workers(self) -> None:
        """Start workers in place of those that there are."""
        self.end_workers()
        options = [
            "--nworkers",
            str(_WORKERS),
            "--nthreads",
            "2",
            "--memory-limit",
            self._memory_limit,
            "--no-dashboard",
        ]
        places = ["--host", "127.0.0.1", "--local-directory", str(self.tmp)]
        self._nannies = self._spawn("worker", self.address, *options, *places)
        until(lambda: len(self.workers()) == _WORKERS, 60, "the workers' start")

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        return workers(self.mark)

    @property
    def scheduler(self) -> psutil.Process:
        """Its scheduler's process."""
        assert self._scheduler is not None
        return psutil.Process(self._scheduler.pid)

    def end_scheduler(self) -> None:
        """SIGKILL to the scheduler."""
        if self._scheduler is not None:
            self._scheduler.kill()
            self._scheduler.wait()

    def end_workers(self) -> None:
        """SIGKILL to workers and their nannies."""
        if self._nannies is not None:
            self._nannies.kill()
            self._nannies.wait()
        for process in self.workers():
            kill(process)

    def end(self) -> None:
        """End all of it."""
        self.end_workers()
        self.end_scheduler()
        end(self.mark)

    def restart(self) -> None:
        """Begin anew: for when a case leaves it hurt."""
        self.end()
        self.start()

    def _spawn(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
