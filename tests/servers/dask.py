"""Real Dask clusters: one a session, whose worker processes reach the session's S3 server; and single processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster

from corpuscore.cluster import connected, local_cluster, run_one
from tests.servers.s3 import S3Server, free_port
from tests.servers.tls import Authority


@pytest.fixture(scope="session")
def dask_address(s3_server: S3Server) -> Iterator[str]:
    """Address of the scheduler of two CPU workers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        with local_cluster(workers=2, device="cpu") as cluster:
            yield cluster.scheduler_address


@pytest.fixture
def empty_cluster() -> Iterator[LocalCluster]:
    """A cluster that has no worker yet; those to come are threads of this process."""
    with LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster


@dataclass
class Process:
    """A process of a cluster that is started by hand, in a group of its own; it dies with the tests.

    Attributes:
        address: Of the scheduler.
    """

    address: str
    _process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    def child(self) -> int:
        """Pid of the worker process that a nanny has started."""
        while not (found := worker_processes(self.pid)):
            time.sleep(0.02)
        return found[0]

    def stop(self) -> None:
        """SIGSTOP to it and all that it started."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT to them."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to them, and wait."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def running_scheduler(authority: Authority | None = None, port: int = 0, **variables: str) -> Iterator[Process]:
    """A `dask scheduler` that is ready.

    Args:
        authority: For TLS.
        port: 0 takes a free one.
        variables: Further environment variables.
    """
    port = port or free_port()
    scheme = "tls" if authority else "tcp"
    arguments = ["--host", f"{scheme}://127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    process = _dask("scheduler", arguments, authority, Path(os.devnull), **variables)
    try:
        _wait_for_port(port, process)
        yield Process(f"{scheme}://127.0.0.1:{port}", process)
    finally:
        Process("", process).kill()


@contextmanager
def running_worker(
    scheduler: str, authority: Authority | None = None, log: Path = Path(os.devnull), threads: int = 2, **variables: str
) -> Iterator[Process]:
    """A `dask worker` with a nanny, on its way to the scheduler.

    Args:
        scheduler: Its address.
        authority: For TLS.
        log: File for its output.
        threads: Tasks that it runs side by side.
        variables: Further environment variables.
    """
    arguments = [scheduler, "--nthreads", str(threads), "--nworkers", "1", "--host", "127.0.0.1", "--no-dashboard"]
    process = _dask("worker", arguments, authority, log, **variables)
    try:
        yield Process(scheduler, process)
    finally:
        Process("", process).kill()


def worker_processes(pid: int) -> list[int]:
    """Pids of the worker processes that nannies of a process have started; a process of Python's own is none."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(int(child.pid))
    return found


def ask(address: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns on a worker of the cluster."""

    async def asked() -> Any:
        async with connected(address) as client:
            return await run_one(client, function, *arguments, what="a question of a test")

    return asyncio.run(asked())


def _dask(
    what: str, arguments: list[str], authority: Authority | None, log: Path, **variables: str
) -> subprocess.Popen[bytes]:
    if authority:
        tls = {"tls-ca-file": authority.ca, "tls-cert": authority.pem, "tls-key": authority.pem}
        arguments = [*arguments, *(part for name, path in tls.items() for part in (f"--{name}", str(path)))]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"dask ended with status {process.returncode}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listened at port {port} in time")
