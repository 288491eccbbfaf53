from __future__ import annotations

import inspect
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from corpuscore.errors import WarehouseError, WarehouseUnavailable
from corpuscore.warehouse import open_warehouse
from corpuscore.warehouse.backends.duckdb import NEXT_STEPS, translated
from tests.parts import KEPT, LABELS


def test_every_exception_class_has_a_next_step() -> None:
    """A class that DuckDB adds is looked at before it reaches users."""
    classes = {kind for _, kind in inspect.getmembers(duckdb, inspect.isclass) if issubclass(kind, duckdb.Error)}
    assert classes == set(NEXT_STEPS)


@pytest.mark.parametrize("kind", NEXT_STEPS)
def test_only_a_conflict_passes_by_itself(kind: type[duckdb.Error], tmp_path: Path) -> None:
    """The class of an exception decides whether it is retried, not its words."""
    error = translated(kind("try again later, connection refused"), tmp_path / "file")
    assert isinstance(error, WarehouseUnavailable) == (kind is duckdb.TransactionException)
    assert error.next_step


@pytest.mark.parametrize(
    "url", ["duckdb://", "duckdb:///", "duckdb://host/file", "duckdb:///file?threads=2", "duckdb:///file#x"]
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    """What has no effect, or no meaning, is an error."""
    with pytest.raises(WarehouseError, match="names no DuckDB file"):
        open_warehouse(url)


def test_relative_and_absolute_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are relative to the working folder, four absolute; %20 is a space."""
    monkeypatch.chdir(tmp_path)
    for url in ("duckdb:///one.duckdb", f"duckdb:///{tmp_path}/two%20words.duckdb"):
        open_warehouse(url).close()
    assert {path.name for path in tmp_path.iterdir()} == {"one.duckdb", "two words.duckdb"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The message says how to make it."""
    with pytest.raises(WarehouseError, match="mkdir -p"):
        open_warehouse(f"duckdb:///{tmp_path}/missing/file.duckdb")


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    """A folder is no warehouse."""
    with pytest.raises(WarehouseError, match="is a folder"):
        open_warehouse(f"duckdb:///{tmp_path}")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A file of something else is named, and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 1000)
    with pytest.raises(WarehouseError, match=r"notes\.txt"):
        open_warehouse(f"duckdb:///{path}")
    assert path.read_text().startswith("not a database")


def test_a_truncated_file(tmp_path: Path) -> None:
    """A database that lost its end is an error, not an empty warehouse."""
    path = tmp_path / "file.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare(LABELS, KEPT)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(WarehouseError), open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.summary(LABELS)


def test_a_folder_that_may_not_be_written() -> None:
    """Nobody, not even root, makes a file in /proc."""
    with pytest.raises(WarehouseError, match=r"/proc/scores\.duckdb"):
        open_warehouse("duckdb:////proc/scores.duckdb")


def test_a_file_of_another_process_is_waited_for(tmp_path: Path) -> None:
    """While another process has the file, the warehouse is unavailable; when it lets go, it opens."""
    path = tmp_path / "file.duckdb"
    script = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print(flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(WarehouseUnavailable, match="open in another process"):
        open_warehouse(f"duckdb:///{path}", patience_seconds=0.3)
    other.communicate()
    open_warehouse(f"duckdb:///{path}", patience_seconds=10).close()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """A write that finds no room is an error with the free space; the ledger stays empty."""
    script = textwrap.dedent(
        f"""
        import resource
        from pathlib import Path
        from corpuscore.errors import WarehouseError
        from corpuscore.warehouse import load_parts, open_warehouse
        from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened

        Path({str(tmp_path)!r}, "parts").mkdir()
        part = PartMaker(Path({str(tmp_path)!r}, "parts")).checked("w1", "a", 200_000)
        with open_warehouse("duckdb:///{tmp_path}/file.duckdb") as warehouse:
            warehouse.prepare(LABELS, KEPT)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
            try:
                load_parts(warehouse, "r", "m", LABELS, KEPT, [part], opened, planned_at=PLANNED_AT)
            except WarehouseError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        """
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limits
    assert "MiB free" in done.stdout, done.stdout + done.stderr
    with open_warehouse(f"duckdb:///{tmp_path}/file.duckdb") as warehouse:
        assert warehouse.ledger("m") == {}
        assert warehouse.summary(LABELS).scored == 0


def test_another_table_in_a_schema(tmp_path: Path) -> None:
    """SCHEMA.TABLE is a table of that schema, where it is there."""
    with duckdb.connect(tmp_path / "file.duckdb") as connection:
        connection.execute("CREATE SCHEMA analytics")
    with open_warehouse(f"duckdb:///{tmp_path}/file.duckdb", "analytics.scores") as warehouse:
        warehouse.prepare(("joy",), pa.schema([]))
    with duckdb.connect(tmp_path / "file.duckdb") as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'analytics'").fetchall()
    assert {name for (name,) in tables} == {"scores", "scores_rejects", "scores_ledger", "scores_runs"}
