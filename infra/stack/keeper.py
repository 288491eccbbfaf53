"""The keeper: starts the services of a home, watches them, and ends them when it is time.

Its standard input is its lifeline, a pipe from whoever started it: the end of that pipe means that nobody is there
any more, and the keeper ends everything, unless it was told to stay. SIGTERM ends everything as well.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from infra.stack.airflow import Airflow, AirflowError, environment
from infra.stack.home import CHECKOUT, Home, State
from infra.stack.ports import free_port
from infra.stack.processes import end, mark

STAY = b"stay\n"
_START_SECONDS = 300.0
_TAIL_LINES = 15


class StartError(Exception):
    """A service did not come up, or ended on its own."""


class Keeper:
    """Holds the services of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._state = State()
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._leave = threading.Event()

    def run(self, lifeline: IO[bytes]) -> int:
        """Start, stay until told otherwise, end. Returns the exit status."""
        threading.Thread(target=self._watch, args=(lifeline,), daemon=True).start()
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sign, lambda *_: self._leave.set())
        try:
            self._start()
            self._stay()
        except StartError as error:
            self._tell(ready=False, failed=str(error))
            return 1
        finally:
            end(self._home.root)
            if not self._state.failed:
                self._home.forget()
        return 0

    def _watch(self, lifeline: IO[bytes]) -> None:
        if lifeline.readline() != STAY:
            self._leave.set()

    def _start(self) -> None:
        self._home.forget()
        self._tell(phase="Starting the Dask cluster")
        self._spawn("dask", [sys.executable, "-m", "infra.stack.cluster", str(self._home.root)], dict(os.environ))
        self._until(self._home.dask.exists)
        self._tell(**json.loads(self._home.dask.read_text()))
        taken: set[int] = set()
        url = f"http://localhost:{free_port(8080, taken)}"
        self._tell(phase="Starting Airflow", airflow=url)
        settings = environment(self._home, self._state.scheduler, url, taken)
        self._spawn("airflow", [str(Path(sys.executable).parent / "airflow"), "standalone"], settings)
        self._until(self._home.passwords.exists)
        self._tell(phase="Waiting for scheduler, triggerer and the first look at the DAG")
        self._until(Airflow(url, self._home.login()).healthy)
        self._tell(phase="ready", ready=True)

    def _stay(self) -> None:
        while not self._leave.wait(1.0):
            self._check_services()

    def _spawn(self, name: str, command: list[str], settings: dict[str, str]) -> None:
        with self._home.log(name).open("wb") as output:
            self._services[name] = subprocess.Popen(  # noqa: S603  # our own commands
                command,
                cwd=CHECKOUT,
                env=settings | mark(self._home.root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _until(self, met: Callable[[], bool]) -> None:
        """Wait for a condition while the services live.

        Raises:
            StartError: One of them ended, or it takes too long.
            SystemExit: It is time to leave.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not met():
            self._check_services()
            if self._leave.wait(0.5):
                raise SystemExit(0)
            if time.monotonic() > deadline:
                raise StartError(f"{self._state.phase} took more than {_START_SECONDS:.0f} s. {self._reasons()}")

    def _check_services(self) -> None:
        for name, service in self._services.items():
            if service.poll() is not None:
                raise StartError(f"{name} ended with status {service.returncode}. {self._tail(name)}")

    def _reasons(self) -> str:
        """What Airflow says of DAG files that it cannot read, else the end of its output."""
        try:
            errors = Airflow(self._state.airflow, self._home.login()).import_errors()
        except (AirflowError, OSError):
            errors = []
        return "\n".join(errors) or self._tail("airflow")

    def _tail(self, name: str) -> str:
        log = self._home.log(name)
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if log.exists() else []
        return "\n".join([f"The end of {log}:", *lines])

    def _tell(self, **news: str | bool) -> None:
        self._state = replace(self._state, **news)  # type: ignore[arg-type]
        self._home.write_state(self._state)


def main(root: str) -> int:
    """Keep the home at `root`, unless somebody does already."""
    home = Home(Path(root))
    home.make()
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 3
        return Keeper(home).run(sys.stdin.buffer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
