from __future__ import annotations

import inspect
import itertools
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

import dask.config
import duckdb
import pyarrow as pa
import pytest

from corpuscore.errors import WarehouseBusy, WarehouseError, WarehouseUnavailable
from corpuscore.warehouse import Counts, RunRow, load_parts, open_warehouse
from corpuscore.warehouse.backends.duckdb import NEXT_STEPS, translated
from tests.contracts import loading_process
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.pg_proxy import wait_for
from tests.servers.warehouses import Target


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


def test_people_read_times_in_the_tables(tmp_path: Path) -> None:
    """`SELECT *` gives Python's own moments, with what corpuscore brings."""
    started = datetime(2026, 3, 1, 6, tzinfo=UTC)
    with open_warehouse(f"duckdb:///{tmp_path}/s.duckdb") as target:
        target.prepare(LABELS, KEPT)
        target.record_run(RunRow("abc", "0123456789abcdef", "done", started))
    with duckdb.connect(tmp_path / "s.duckdb") as connection:
        (row,) = connection.execute("SELECT * FROM scores_runs").fetchall()
    assert started in row


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


_LOAD = """
import resource, sys
from pathlib import Path
from corpuscore.errors import WarehouseError
from corpuscore.warehouse import load_parts, open_warehouse
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened

database, parts, rows, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
parts.mkdir()
part = PartMaker(parts).checked("w1", "a", rows)
with open_warehouse(f"duckdb:///{database}") as warehouse:
    warehouse.prepare(LABELS, KEPT)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        load_parts(warehouse, "r", "m", LABELS, KEPT, [part], opened, planned_at=PLANNED_AT)
    except WarehouseError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def load_apart(database: Path, parts: Path, rows: int, limit: int = 0) -> str:
    """Load rows in a process of its own, whose files may have so many bytes; what it says of its failure."""
    arguments = [sys.executable, "-c", _LOAD, str(database), str(parts), str(rows), str(limit)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("rows", [20_000, 200_000])
def test_a_full_disk_keeps_what_was_there(tmp_path: Path, rows: int) -> None:
    """A write that finds no room, in the INSERT or in the COMMIT, is told as such; the ledger stays empty."""
    database = tmp_path / "file.duckdb"
    said = load_apart(database, tmp_path / "parts", rows, limit=2**19)
    assert re.search(r"\d+ MiB free on its disk.*free space on the disk", said), said
    with open_warehouse(f"duckdb:///{database}") as warehouse:
        assert warehouse.ledger("m") == {}
        assert warehouse.summary(LABELS).scored == 0


@pytest.mark.parametrize("rows", [60_000, 400_000])
def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path, rows: int) -> None:
    """No space left on device is no conflict with another writer: it is not retried, and what to do is told."""
    said = load_apart(small_disk / "file.duckdb", tmp_path / "parts", rows)
    assert "No space left on device" in said
    assert "Next: free space on the disk" in said
    with open_warehouse(f"duckdb:///{small_disk}/file.duckdb") as warehouse:
        assert warehouse.ledger("m") == {}


def test_a_disk_that_only_reads(small_disk: Path, tmp_path: Path) -> None:
    """The file can be read and not be written: the message says so."""
    load_apart(small_disk / "file.duckdb", tmp_path / "parts", 10)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(WarehouseError, match=r"file\.duckdb.*(permission|Read-only|written)"):
        open_warehouse(f"duckdb:///{small_disk}/file.duckdb")


def kill_after(process: BaseProcess, folder: Path, seconds: float) -> None:
    """Kill a loader so long after it has opened, or found, its file."""
    wait_for(lambda: (folder / "file.duckdb").exists() or not process.is_alive())
    time.sleep(seconds)
    process.kill()
    process.join()


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments_leave_all_or_nothing(tmp_path: Path, seed: int) -> None:
    """kill -9 to a loader, again and again at moments that a seed names: then one that is let be has each row once."""
    chance, maker = random.Random(seed), PartMaker(tmp_path / "parts")
    maker.folder.mkdir()
    target = Target(f"duckdb:///{tmp_path}/file.duckdb", "scores")
    versions = [
        [maker.checked(f"w{at}-{version}", f"o{at}", 9_000, 5, seed=version) for at in range(4)] for version in (0, 1)
    ]
    for _ in range(3):
        kill_after(loading_process.start(target, chance.choice(versions)), tmp_path, chance.uniform(0, 1.5))
        with target.open() as warehouse:
            for item in warehouse.objects("model").values():
                assert warehouse.count(list(item.digests)) == Counts(9_000, 5)
    process = loading_process.start(target, versions[1])
    process.join()
    assert process.exitcode == 0
    with target.open() as warehouse:
        assert set(warehouse.ledger("model")) == {part.work_id for part in versions[1]}
        assert warehouse.summary(LABELS).scored == 36_000


def test_a_file_that_another_thread_writes_to_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second writer of this process waits for the first, says so, and gives up in time."""
    maker, target = PartMaker(tmp_path), Target(f"duckdb:///{tmp_path}/file.duckdb", "scores")
    part, inside, go_on = maker.checked("w1", "a", 5), threading.Event(), threading.Event()

    def holding(path: str) -> BinaryIO:
        inside.set()
        assert go_on.wait(60)
        return opened(path)

    def load_first() -> None:
        with target.open() as first:
            first.prepare(LABELS, KEPT)
            load_parts(first, "run", "model", LABELS, KEPT, [part], holding, planned_at=PLANNED_AT)

    with dask.config.set({"corpuscore.wait-for-warehouse": "3s"}), ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_first)
        assert inside.wait(60)
        with target.open() as second, pytest.raises(WarehouseUnavailable, match="another thread of this process"):
            second.prepare(LABELS, KEPT)
        go_on.set()
        loading.result(60)
    assert "another thread of this process is writing. It is tried again until" in caplog.text


def _hammer(folder: Path, until: float) -> None:
    """Make new files at the moments at which others make them; and open, commit to and close each of them again."""
    for at in itertools.count():
        if time.time() > until:
            return
        for name in (at, at, 0):
            with open_warehouse(f"duckdb:///{folder}/{name}.duckdb", patience_seconds=60) as warehouse:
                warehouse.prepare(("joy",), pa.schema([]))


def test_processes_that_hammer_on_files_wait_for_each_other(tmp_path: Path) -> None:
    """Whatever DuckDB says while another process makes a file, commits to it or closes it: it passes."""
    spawning = multiprocessing.get_context("spawn")
    processes = [spawning.Process(target=_hammer, args=(tmp_path, time.time() + 2.5)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    for made in tmp_path.glob("*.duckdb"):
        open_warehouse(f"duckdb:///{made}").close()
    assert not list(tmp_path.glob(".*"))


def test_an_empty_file_that_was_left_behind_becomes_a_database(tmp_path: Path) -> None:
    """One that is young may be another process's, and is waited for."""
    path = tmp_path / "file.duckdb"
    path.touch()
    with pytest.raises(WarehouseBusy, match="another process is making it"):
        open_warehouse(f"duckdb:///{path}", patience_seconds=0)
    os.utime(path, (0, 0))
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare(LABELS, KEPT)
    assert [item.name for item in tmp_path.iterdir()] == ["file.duckdb"]


def test_other_settings_in_this_process_pass(tmp_path: Path) -> None:
    """Where somebody in this process only reads the file, it is waited for."""
    path = tmp_path / "file.duckdb"
    duckdb.connect(path).close()
    with duckdb.connect(path, read_only=True), pytest.raises(WarehouseBusy, match="other settings"):
        open_warehouse(f"duckdb:///{path}", patience_seconds=0)
    open_warehouse(f"duckdb:///{path}").close()


@pytest.mark.parametrize("table", ["analytics.scores", "Analytics.scores", "main.scores", "scores"])
def test_a_file_of_the_name_of_a_schema(tmp_path: Path, table: str) -> None:
    """DuckDB calls a database by its file's name, which may be that of the schema too."""
    with duckdb.connect(tmp_path / "analytics.duckdb") as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS analytics")
    for _ in range(2):
        with open_warehouse(f"duckdb:///{tmp_path}/analytics.duckdb", table) as warehouse:
            warehouse.check(LABELS, KEPT.names)
            warehouse.prepare(LABELS, KEPT)
    with duckdb.connect(tmp_path / "analytics.duckdb") as connection:
        found = connection.execute("SELECT DISTINCT schema_name FROM duckdb_tables()").fetchall()
    assert found == [("main" if "nalytics" not in table else "analytics",)]


def test_another_table_in_a_schema(tmp_path: Path) -> None:
    """SCHEMA.TABLE is a table of that schema, where it is there."""
    with duckdb.connect(tmp_path / "file.duckdb") as connection:
        connection.execute("CREATE SCHEMA analytics")
    with open_warehouse(f"duckdb:///{tmp_path}/file.duckdb", "analytics.scores") as warehouse:
        warehouse.prepare(("joy",), pa.schema([]))
    with duckdb.connect(tmp_path / "file.duckdb") as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'analytics'").fetchall()
    assert {name for (name,) in tables} == {"scores", "scores_rejects", "scores_ledger", "scores_runs"}
