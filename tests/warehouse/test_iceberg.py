"""Iceberg has one commit a table: a load is whole, and there once, wherever it is killed between them."""

from __future__ import annotations

import sys
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table, Transaction

from corpuscore.errors import WarehouseError
from corpuscore.warehouse import Counts, LoadSummary, Warehouse, load_parts, open_warehouse, remove_objects
from corpuscore.warehouse.iceberg.catalog import parsed
from corpuscore.warehouse.iceberg.journal import following
from tests.contracts import loading_process
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.postgresql import run
from tests.servers.warehouses import Target, read_scores


class Killed(BaseException):
    """The end of a process, as the next one sees it: nothing after it is done, nothing is tidied up."""


@dataclass
class Kill:
    """Ends the process before or after one of its commits to a catalog."""

    at: int
    before: bool
    commits: int = 0

    def commit(self, transaction: Transaction) -> Table:
        """In place of Transaction.commit_transaction."""
        self.commits += 1
        if self.commits == self.at and self.before:
            raise Killed
        table = _COMMIT(transaction)
        if self.commits == self.at:
            raise Killed
        return table


_COMMIT = Transaction.commit_transaction


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """An SQL catalog in a file."""
    return Target(f"iceberg+sqlite:///{tmp_path}/catalog.db?warehouse=file://{tmp_path}/lake", "analytics.scores")


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts into a folder of the test."""
    (tmp_path / "parts").mkdir()
    return PartMaker(tmp_path / "parts")


def load(warehouse: Warehouse, parts: Any, **more: Any) -> LoadSummary:
    """Load parts with the usual columns."""
    return load_parts(warehouse, "run", "model", LABELS, KEPT, parts, opened, **{"planned_at": PLANNED_AT, **more})


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_load_that_is_killed_at_each_of_its_commits(
    target: Target, maker: PartMaker, monkeypatch: pytest.MonkeyPatch, at: int, before: bool
) -> None:
    """Scores, rejects, ledger: what a killed load has begun is ended by whoever opens the tables next, once."""
    first = [maker.checked("w1", "a", 5, 2), maker.checked("w2", "b", 3, 1)]
    second = [maker.checked("w3", "a", 4, 1, seed=1), first[1]]
    with target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, first)
    with target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        kill = Kill(at, before)
        monkeypatch.setattr(Transaction, "commit_transaction", lambda transaction: kill.commit(transaction))
        with pytest.raises(Killed):
            load(warehouse, second)
        monkeypatch.setattr(Transaction, "commit_transaction", _COMMIT)
    is_loaded = (at, before) != (1, True)
    with target.open() as reader:
        expected = {"w3", "w2"} if is_loaded else {"w1", "w2"}
        assert set(reader.ledger("model")) == expected
        assert reader.count(["w1", "w2", "w3"]) == (Counts(7, 2) if is_loaded else Counts(8, 3))
    with target.open() as again:
        summary = load(again, second)
        assert summary.work_ids_loaded == (0 if is_loaded else 1)
        assert again.count(["w1", "w2", "w3"]) == Counts(7, 2)
        assert remove_objects(again, "run", "model", ["a"], PLANNED_AT.replace(year=2027)) == 5
    assert len(read_scores(target)) == 3
    assert not list(Path(target.url.partition("file://")[2]).rglob("journal/*")) or not is_loaded


def test_a_commit_that_another_writer_was_quicker_than(
    target: Target, maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided anew on what the other one has done; its files are written once, and pyiceberg repeats nothing."""
    with target.open() as warehouse, target.open() as other:
        warehouse.prepare(LABELS, KEPT)
        parts = [maker.checked("w1", "a", 5, 1)]
        raced = iter([True])

        def racing(transaction: Transaction) -> Table:
            if next(raced, False):
                load(other, [maker.checked("w2", "a", 4), maker.checked("w3", "b", 2, 2)])
            return _COMMIT(transaction)

        monkeypatch.setattr(Transaction, "commit_transaction", racing)
        later = PLANNED_AT.replace(year=2027)
        assert load(warehouse, parts, planned_at=later) == LoadSummary(5, 1, work_ids_loaded=1, rows_superseded=4)
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(7, 3)
        assert set(other.ledger("model")) == {"w1", "w3"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_make_a_catalog_and_its_tables_at_once(
    kind: str, request: pytest.FixtureRequest, target: Target, maker: PartMaker
) -> None:
    """Both load what they have; a catalog in PostgreSQL does as one in a file."""
    if kind == "postgresql":
        target = Target(_postgresql_catalog(request.getfixturevalue("postgresql"), target), target.table)
    parts = [maker.checked(f"w{at}", f"object-{at}", 20, 1, first=100 * at) for at in range(2)]
    processes = [loading_process.start(target, [part]) for part in parts]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with target.open() as warehouse:
        assert warehouse.count(["w0", "w1"]) == Counts(40, 2)
    assert len(read_scores(target)) == 40


def _postgresql_catalog(server: str, target: Target) -> str:
    """The URL of a catalog in a new database of a server, with its files where those of a target are."""
    name = f"catalog_{uuid.uuid4().hex[:8]}"
    run(server, f"CREATE DATABASE {name}")
    url = server.replace("/postgres?", f"/{name}?")
    return f"iceberg+{url}&warehouse={target.url.partition('warehouse=')[2]}"


def test_a_namespace_that_another_writer_made_meanwhile(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when it was asked for, and is there when it is made: looked at again, not refused."""
    exists, raced = SqlCatalog.namespace_exists, iter([True])

    def racing(catalog: SqlCatalog, name: Any) -> bool:
        if not next(raced, False):
            return bool(exists(catalog, name))
        catalog.create_namespace(name)
        return False

    with target.open() as warehouse:
        monkeypatch.setattr(SqlCatalog, "namespace_exists", racing)
        warehouse.prepare(LABELS, KEPT)
        assert warehouse.count(["w1"]) == Counts(0, 0)


def test_a_catalog_in_postgresql_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WarehouseError, match=r"no module psycopg.*corpuscore\[iceberg-postgresql\]"):
        open_warehouse("iceberg+postgresql://u@h/db?warehouse=s3://b/w")


def test_what_others_do_to_the_tables_is_found(target: Target, maker: PartMaker) -> None:
    """Snapshots of maintenance lie over ours, and ours are there for whoever asks which load a snapshot is of."""
    with target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, [maker.checked("w1", "a", 5, 1)])
        name, properties = parsed(target.url)
        with closing(load_catalog(name, **properties)) as catalog:
            table = catalog.load_table("analytics.scores")
            snapshot = table.metadata.current_snapshot()
            assert snapshot is not None
            assert snapshot.summary is not None
            assert str(snapshot.summary["corpuscore.load"]).startswith("000000000001-")
            table.delete("work_id = 'w1'")
        assert warehouse.count(["w1"]) == Counts(0, 1)
        assert load(warehouse, [maker.checked("w2", "b", 3)]).rows_loaded == 3
        assert warehouse.count(["w2"]) == Counts(3, 0)


def test_loads_are_numbered() -> None:
    """A later one is greater, as text."""
    first = following("")
    assert "" < first < following(first) < following("000000000009-ffff") < following("000000000010-0")


@pytest.mark.parametrize(
    ("url", "name", "properties"),
    [
        ("iceberg://prod", "prod", {}),
        ("iceberg://prod?warehouse=s3://b/w", "prod", {"warehouse": "s3://b/w"}),
        (
            "iceberg+sqlite:////data/catalog.db?warehouse=file:///data&name=mine",
            "mine",
            {"type": "sql", "uri": "sqlite:////data/catalog.db", "warehouse": "file:///data"},
        ),
        (
            "iceberg+postgresql://u:p%40w@h:5433/db?sslmode=require&warehouse=s3://b/w&host=/run",
            "default",
            {"type": "sql", "uri": "postgresql+psycopg://u:p%40w@h:5433/db?host=%2Frun&sslmode=require"}
            | {"warehouse": "s3://b/w"},
        ),
        ("iceberg+sqlite:///catalog.db", "default", {"type": "sql", "uri": "sqlite:///catalog.db"}),
        (
            "iceberg+https://host:8181/api/catalog?warehouse=w&token=t",
            "default",
            {"type": "rest", "uri": "https://host:8181/api/catalog", "warehouse": "w", "token": "t"},
        ),
        ("iceberg+http://127.0.0.1:8181", "default", {"type": "rest", "uri": "http://127.0.0.1:8181"}),
        ("iceberg+rest://host/x", "default", {"type": "rest", "uri": "https://host/x"}),
    ],
)
def test_the_catalog_of_a_url(url: str, name: str, properties: dict[str, str]) -> None:
    """A name of pyiceberg's configuration, or the catalog's own address with its properties."""
    assert parsed(url) == (name, properties)


@pytest.mark.parametrize(
    "url", ["iceberg://", "iceberg:///x", "iceberg+ftp://host", "iceberg+sqlite://", "iceberg://a/b"]
)
def test_a_url_that_names_no_catalog_is_refused(url: str) -> None:
    """The message says how a catalog is named."""
    with pytest.raises(WarehouseError, match="names no Iceberg catalog"):
        open_warehouse(url)


def test_an_unknown_catalog_and_one_without_a_warehouse(tmp_path: Path) -> None:
    """What pyiceberg says of it is told with the address, and without a secret in it."""
    with pytest.raises(WarehouseError, match="iceberg://nowhere"):
        open_warehouse("iceberg://nowhere")
    url = f"iceberg+sqlite:///{tmp_path}/missing/catalog.db?warehouse=file:///x&token=secret"
    with pytest.raises(WarehouseError, match="missing/catalog") as caught:
        open_warehouse(url)
    assert "secret" not in str(caught.value)
