"""What becomes of a load, and of every other call, while PostgreSQL is cut off, stalled, stopped or locked."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import adbc_driver_postgresql.dbapi
import dask.config
import pytest

from corpuscore.errors import WarehouseError, WarehouseUnavailable
from corpuscore.records import CheckedPart
from corpuscore.warehouse import Counts, LoadSummary, RunRow, Warehouse, load_parts, open_warehouse
from corpuscore.warehouse.libpq.address import Address
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.pg_proxy import Fault, PgProxy, after, at_message, once, pg_proxy, wait_for
from tests.servers.postgresql import BreakableServer, new_table, run

LATER = PLANNED_AT + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Half a minute instead of ten: a server is silent after three seconds, a lock is given up after five."""
    with dask.config.set({"corpuscore.wait-for-warehouse": "30s"}):
        yield


@pytest.fixture
def proxy(postgresql: str) -> Iterator[PgProxy]:
    """A way to the session's server that breaks as a test says."""
    with pg_proxy(postgresql) as proxy:
        yield proxy


@pytest.fixture
def parts(tmp_path: Path) -> list[CheckedPart]:
    """Three parts of two objects."""
    maker = PartMaker(tmp_path)
    return [maker.checked("w1", "a", 50, 3), maker.checked("w2", "a", 40, first=53), maker.checked("w3", "b", 30, 1)]


def load(warehouse: Warehouse, parts: list[CheckedPart]) -> LoadSummary:
    """Load parts with the usual columns."""
    return load_parts(warehouse, "run", "model", LABELS, KEPT, parts, opened, planned_at=PLANNED_AT)


ALL = LoadSummary(rows_loaded=120, rejects_loaded=4, work_ids_loaded=3)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_commit_that_breaks_is_a_load_once(proxy: PgProxy, parts: list[CheckedPart], fault: Fault) -> None:
    """Not arrived, half arrived, carried out without an answer, or lost on the way: the rows are there once."""
    with open_warehouse(proxy.url, new_table()) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        proxy.rule = after("COPY", once("COMMIT", fault))
        assert load(warehouse, parts) == ALL
        assert [what for _, what in proxy.faults] == [fault]
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(120, 4)
        assert load(warehouse, parts) == LoadSummary(work_ids_skipped=3)


CALLS: dict[str, Callable[[Warehouse], object]] = {
    "prepare": lambda warehouse: warehouse.prepare(LABELS, KEPT),
    "check": lambda warehouse: warehouse.check(LABELS, KEPT.names),
    "ledger": lambda warehouse: sorted(warehouse.ledger("model")),
    "objects": lambda warehouse: sorted(warehouse.objects("model")),
    "count": lambda warehouse: warehouse.count(["w1", "w2", "w3"]),
    "summary": lambda warehouse: warehouse.summary(LABELS).scored,
    "runs": lambda warehouse: [row.run_id for row in warehouse.runs()],
    "record_run": lambda warehouse: warehouse.record_run(RunRow("run", "model", "done", PLANNED_AT)),
    "changed_at": lambda warehouse: warehouse.changed_at("run") is not None,
    "remove": lambda warehouse: warehouse.remove("run", "model", ["never was"], LATER),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.ANSWER])
def test_every_call_outlives_a_cut(
    proxy: PgProxy, parts: list[CheckedPart], call: Callable[[Warehouse], object], fault: Fault
) -> None:
    """Each is tried again on a connection of its own, after its first message and after its commit."""
    with open_warehouse(proxy.url, new_table()) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, parts)
        expected = call(warehouse)
        for rule in (at_message(0, fault), once("COMMIT", fault)):
            proxy.rule = rule
            assert call(warehouse) == expected
        assert [what for _, what in proxy.faults] == [fault, fault]
        assert len(warehouse.runs()) <= 1


def test_a_server_that_is_not_there_yet_is_waited_for(
    proxy: PgProxy, parts: list[CheckedPart], caplog: pytest.LogCaptureFixture
) -> None:
    """Opening is tried again too; the log says what is waited for, since when and until when."""
    proxy.refuse()
    threading.Timer(1.5, proxy.refuse, [False]).start()
    with open_warehouse(proxy.url, new_table()) as warehouse:
        assert warehouse.runs() == []
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(r"open: postgresql://.* is tried again until \d\d:\d\d:\d\d \(since \d\d:\d\d:\d\d\)", said)


def test_an_outage_ends_with_what_was_done_about_it(proxy: PgProxy) -> None:
    """The message says for how long and how often it was tried, and what to set to wait longer."""
    proxy.refuse()
    with (
        dask.config.set({"corpuscore.wait-for-warehouse": "1s"}),
        pytest.raises(WarehouseUnavailable, match=r"Tried \d+ times in \d s, of 1 s \(DASK_CORPUSCORE__WAIT_FOR_W"),
    ):
        open_warehouse(proxy.url, new_table())


def test_a_patience_that_is_no_time_is_refused() -> None:
    """The message names the setting."""
    with (
        dask.config.set({"corpuscore.wait-for-warehouse": "soon"}),
        pytest.raises(WarehouseError, match="wait-for-wareh"),
    ):
        open_warehouse("postgresql://host/db")


@pytest.mark.parametrize("seed", range(8))
def test_cuts_at_random_moments_lose_nothing(postgresql: str, parts: list[CheckedPart], seed: int) -> None:
    """Three connections in a row break at messages that a seed names; the table is as if none had."""
    moments = random.Random(seed)
    print(f"seed {seed}")
    with pg_proxy(postgresql) as proxy, open_warehouse(proxy.url, new_table()) as warehouse:
        for _ in range(3):
            proxy.rule = at_message(moments.randrange(60), moments.choice([Fault.CUT, Fault.HALF, Fault.ANSWER]))
            warehouse.prepare(LABELS, KEPT)
            load(warehouse, parts)
            warehouse.record_run(RunRow("run", "model", "done", PLANNED_AT))
        proxy.rule = None
        assert proxy.faults
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(120, 4)
        assert warehouse.summary(LABELS).scored == 120
        assert [row.run_id for row in warehouse.runs()] == ["run"]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_the_middle_of_a_load(
    breakable_postgresql: BreakableServer, parts: list[CheckedPart], mode: str
) -> None:
    """The load begins again when the server is back."""
    restarted = iter([True])

    def restarting(path: str) -> BinaryIO:
        if next(restarted, False):
            breakable_postgresql.restart(mode)
        return opened(path)

    with open_warehouse(breakable_postgresql.url) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        summary = load_parts(
            warehouse,
            "run",
            "model",
            LABELS,
            KEPT,
            parts,
            restarting,
            planned_at=PLANNED_AT,
        )
        assert summary == ALL
        assert warehouse.summary(LABELS).scored == 120


def test_a_server_that_was_stopped_is_given_up_and_then_found_again(
    breakable_postgresql: BreakableServer, parts: list[CheckedPart], caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps its connections and answers nothing: the call is left behind, and tried until it goes on."""
    with open_warehouse(breakable_postgresql.url) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        breakable_postgresql.stop_answering()
        threading.Timer(12, breakable_postgresql.answer_again).start()
        assert load(warehouse, parts) == ALL
        assert warehouse.summary(LABELS).scored == 120
    assert "answered nothing for" in caplog.text or "did not answer for" in caplog.text


def test_a_server_that_stays_stopped_ends_in_time(breakable_postgresql: BreakableServer) -> None:
    """With an error of ours, and without waiting for the connection to close."""
    began = time.monotonic()
    with (
        dask.config.set({"corpuscore.wait-for-warehouse": "10s"}),
        open_warehouse(breakable_postgresql.url) as warehouse,
    ):
        breakable_postgresql.stop_answering()
        with pytest.raises(WarehouseUnavailable, match=r"(timeout|answer).* of 10 s"):
            warehouse.runs()
    assert time.monotonic() - began < 120


def test_rows_that_come_slowly_are_waited_for(
    postgresql: str, parts: list[CheckedPart], caplog: pytest.LogCaptureFixture
) -> None:
    """A store that takes its time, before the first row and between two, is no lost connection."""

    def slow(path: str) -> BinaryIO:
        time.sleep(5)
        return opened(path)

    with open_warehouse(postgresql, new_table()) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        assert load_parts(warehouse, "run", "model", LABELS, KEPT, parts, slow, planned_at=PLANNED_AT) == ALL
    assert "tried again" not in caplog.text


@contextmanager
def held(url: str, *statements: str) -> Iterator[None]:
    """Another session that has done this in a transaction, and does not end it."""
    with adbc_driver_postgresql.dbapi.connect(f"{url}&application_name=nightly%20vacuum") as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                cursor.fetchall() if statement.startswith("SELECT") else None
        yield
        connection.rollback()


def test_a_lock_of_another_session_is_named_and_waited_for(
    postgresql: str, parts: list[CheckedPart], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's LOCK TABLE holds a load up: the log says whose it is, and when it goes the load goes on."""
    table = new_table()
    with open_warehouse(postgresql, table) as warehouse, ThreadPoolExecutor(1) as pool:
        warehouse.prepare(LABELS, KEPT)
        with held(postgresql, f"LOCK TABLE {table}"):
            loading = pool.submit(load, warehouse, parts)
            wait_for(lambda: "a lock is held by" in caplog.text)
            assert not loading.done()
        assert loading.result(60) == ALL
    assert re.search(
        r"a lock is held by session \d+ \(nightly vacuum of postgres, idle in transaction, since", caplog.text
    )


def test_a_lock_that_never_goes_is_given_up(postgresql: str, parts: list[CheckedPart]) -> None:
    """The error names the session that holds it, and how it could be ended."""
    table = new_table()
    with (
        dask.config.set({"corpuscore.wait-for-warehouse": "4s"}),
        open_warehouse(postgresql, table) as warehouse,
    ):
        warehouse.prepare(LABELS, KEPT)
        with (
            held(postgresql, f"LOCK TABLE {table}_ledger"),
            pytest.raises(WarehouseUnavailable, match=r"session \d+ \(nightly vacuum .*pg_terminate_backend"),
        ):
            load(warehouse, parts)
        assert load(warehouse, parts) == ALL


def test_a_load_that_another_loader_holds_up_names_it(
    postgresql: str, parts: list[CheckedPart], caplog: pytest.LogCaptureFixture
) -> None:
    """Two loads of one object: the second waits for the first, which is known by its application's name."""
    table, inside, go_on = new_table(), threading.Event(), threading.Event()

    def holding(path: str) -> BinaryIO:
        inside.set()
        assert go_on.wait(60)
        return opened(path)

    def load_first() -> LoadSummary:
        with open_warehouse(postgresql, table) as first:
            return load_parts(
                first,
                "run",
                "model",
                LABELS,
                KEPT,
                parts,
                holding,
                planned_at=PLANNED_AT,
            )

    with open_warehouse(postgresql, table) as warehouse, ThreadPoolExecutor(2) as pool:
        warehouse.prepare(LABELS, KEPT)
        loading = pool.submit(load_first)
        assert inside.wait(60)
        second = pool.submit(load, warehouse, parts)
        wait_for(lambda: "a lock is held by" in caplog.text)
        go_on.set()
        assert (loading.result(60), second.result(60)) == (ALL, LoadSummary(work_ids_skipped=3))
    assert re.search(r"a lock is held by session \d+ \(corpuscore of postgres, active, since", caplog.text)


def test_a_full_disk_of_the_server_is_told_and_not_tried_again(
    breakable_postgresql: BreakableServer, small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tablespace without room: the error is permanent, nothing is kept, and elsewhere the same load goes through."""
    place = small_disk / "tables"
    place.mkdir()
    place.chmod(0o777)
    breakable_postgresql.own(place)
    run(breakable_postgresql.url, f"CREATE TABLESPACE small LOCATION '{place}'")
    parts = [PartMaker(tmp_path).checked("w1", "a", 200_000)]
    for space, words in (("small", "disk is full: free space on it"), ("pg_default", "")):
        options = quote(f"-c default_tablespace={space}")
        with open_warehouse(f"{breakable_postgresql.url}&options={options}", f"in_{space}") as warehouse:
            warehouse.prepare(LABELS, KEPT)
            if words:
                with pytest.raises(WarehouseError, match=words):
                    load(warehouse, parts)
            assert warehouse.ledger("model") == {}
            assert warehouse.summary(LABELS).scored == 0
    assert not [record for record in caplog.records if "tried again" in record.getMessage()]


def test_a_session_names_itself(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an administrator who looks for who holds a lock; unless the URL, or PGAPPNAME, says otherwise."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'"
    for name, url in (("corpuscore", postgresql), ("mine", f"{postgresql}&application_name=mine")):
        [(before,)] = run(postgresql, asked.format(name))
        with open_warehouse(url):
            assert run(postgresql, asked.format(name)) == [(before + 1,)]
    monkeypatch.setenv("PGAPPNAME", "ours")
    assert "application_name" not in Address(postgresql).url


def test_a_dead_network_is_noticed_within_a_minute() -> None:
    """libpq is told so, for connections that wait and for those that send; what a URL says itself stays."""
    url = Address("postgresql://host/db?tcp_user_timeout=5000").url
    assert "tcp_user_timeout=5000&" in url
    assert "tcp_user_timeout=60000" not in url
    idle, interval, count = (
        int(re.findall(rf"keepalives_{name}=(\d+)", url)[0]) for name in ("idle", "interval", "count")
    )
    assert idle + interval * count <= 60
