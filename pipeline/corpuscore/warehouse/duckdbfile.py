"""A new DuckDB file, which is there whole or not at all.

DuckDB makes a file empty and then fills it. Of two processes that make one at the same time, one finds the other's lock
and the other an empty file, which is no database to it; both refuse, and the empty file stays and is refused for ever.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from pathlib import Path

import duckdb

from corpuscore.errors import WarehouseBusy

#: An empty file this young may be one that somebody else is just filling.
_FILLING_SECONDS = 2.0


def make_database(path: Path) -> None:
    """Make a database where no file is, or an empty one that was left behind.

    Raises:
        WarehouseBusy: The file is being made by somebody else.
        duckdb.Error, OSError: It cannot be made.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        _install(path)
        return
    if stat.st_size == 0 and path.is_file():
        if time.time() - stat.st_mtime < _FILLING_SECONDS:
            raise WarehouseBusy(f"{path} is empty: another process is making it", next_step="rerun")
        _replace(path)


def _install(path: Path) -> None:
    """Give a new database the name, unless it is taken by now."""
    draft = _draft(path)
    try:
        os.link(draft, path)
    except OSError:
        return  # another process was quicker; or there are no hard links here, and DuckDB makes it in its own way
    finally:
        draft.unlink()


def _replace(path: Path) -> None:
    """Put a new database in place of an empty file, under a lock on that file: two would replace each other's."""
    with path.open("rb") as empty:
        fcntl.flock(empty, fcntl.LOCK_EX)
        now = path.stat()
        if now.st_size == 0 and now.st_ino == os.fstat(empty.fileno()).st_ino:
            _draft(path).replace(path)


def _draft(path: Path) -> Path:
    draft = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    duckdb.connect(draft).close()
    return draft
