from __future__ import annotations

import socket
import time
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from corpuscore.errors import WarehouseError, WarehouseUnavailable
from corpuscore.records import CheckedPart
from corpuscore.warehouse import Counts, Warehouse, load_parts, open_warehouse
from corpuscore.warehouse.libpq.address import Address
from corpuscore.warehouse.libpq.refusals import SQLSTATES, connecting_error, translated
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.postgresql import Login, as_user, run

SECRET = "s3cret/&?#:@%"
WRONG = f"wr0ng{SECRET}"


@pytest.fixture
def login(postgresql_login: Login) -> str:
    """A role that has to give its password and may do nothing but log in."""
    run(postgresql_login.admin, f"ALTER ROLE {postgresql_login.role} PASSWORD '{SECRET}'")
    return postgresql_login.role


def everything_shown(error: BaseException) -> str:
    """What a log would hold of an error: its traceback with causes, and its parts."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)


def test_a_wrong_password_is_permanent_and_not_shown(postgresql: str, login: str) -> None:
    """The message names user and server, and what to check."""
    with pytest.raises(WarehouseError, match="PGPASSWORD") as caught:
        open_warehouse(as_user(postgresql, login, WRONG))
    shown = everything_shown(caught.value)
    assert login in shown
    assert "wr0ng" not in shown
    assert "s3cret" not in shown


def test_the_password_may_come_from_the_environment(
    postgresql: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGPASSWORD is libpq's own; without it the login is refused."""
    url = as_user(postgresql, login)
    with pytest.raises(WarehouseError, match="PGPASSWORD"):
        open_warehouse(url)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with open_warehouse(url) as warehouse:
        assert login in repr(warehouse)
        assert "s3cret" not in repr(warehouse)


def test_no_permission_says_what_to_grant(postgresql: str, login: str) -> None:
    """A role that may not create tables is told what it needs, without its password."""
    with (
        open_warehouse(as_user(postgresql, login, SECRET)) as warehouse,
        pytest.raises(WarehouseError, match="grant") as caught,
    ):
        warehouse.prepare(LABELS, KEPT)
    assert "s3cret" not in everything_shown(caught.value)


@pytest.mark.parametrize("secret", ["Zq/ss", "12/ss", "Zq?ss", "Zq#ss", "12?ss"])
def test_an_unescaped_password_is_not_shown(secret: str) -> None:
    """A URL that its password breaks is refused as a whole."""
    with pytest.raises(WarehouseError, match="percent-encoded") as caught:
        open_warehouse(f"postgresql://user:{secret}@localhost/db", patience_seconds=0)
    assert secret[:2] not in str(caught.value)


@given(st.text(min_size=4).filter(lambda text: text.isprintable() and "*" not in text))
def test_no_password_survives_redaction(secret: str) -> None:
    """Encoded or not, a password that a message repeats is taken out."""
    encoded = quote(secret, safe="")
    address = Address(f"postgresql://user:{encoded}@host/db")
    message = address.redacted(f"could not use {secret} or {encoded}")
    assert secret not in message
    assume("user" not in encoded and encoded not in "postgresql://user@host/db")
    assert secret not in address.shown
    assert encoded not in address.shown


def test_several_hosts_and_ipv6_are_libpqs() -> None:
    """What libpq understands passes through."""
    for url in (
        "postgresql://u@a:5432,b:5433/db?target_session_attrs=read-write",
        "postgresql://[::1]:5432/db",
        "postgresql:///db?host=/socket",
        "postgresql://u@/db?host=/socket&password=x@y",
    ):
        assert Address(url).url.startswith(url)


def test_no_such_database(postgresql: str) -> None:
    """A database that is not there is permanent."""
    parts = urlsplit(postgresql)
    with pytest.raises(WarehouseError, match="database"):
        open_warehouse(f"postgresql://postgres@/no_such_database?{parts.query}")


def test_no_such_role(postgresql: str) -> None:
    """A user that is not there is permanent."""
    with pytest.raises(WarehouseError, match="check the user"):
        open_warehouse(as_user(postgresql, "nobody_at_all"))


def test_a_server_that_is_down_is_unavailable() -> None:
    """A refused connection may pass later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(WarehouseUnavailable, match=str(port)):
        open_warehouse(f"postgresql://user:hush@127.0.0.1:{port}/db", patience_seconds=0.2)


def test_a_socket_folder_without_a_server_is_unavailable(tmp_path: Path) -> None:
    """A server on a socket may also be down."""
    with pytest.raises(WarehouseUnavailable, match="server is up"):
        open_warehouse(f"postgresql:///db?host={tmp_path}", patience_seconds=0.2)


def test_a_database_that_only_reads(postgresql: str) -> None:
    """A replica is named as what it is."""
    options = quote("-c default_transaction_read_only=on")
    with (
        open_warehouse(f"{postgresql}&options={options}", f"t_{uuid.uuid4().hex}") as warehouse,
        pytest.raises(WarehouseError, match="primary"),
    ):
        warehouse.prepare(LABELS, KEPT)


@pytest.fixture
def warehouse(postgresql: str) -> Iterator[Warehouse]:
    """A prepared warehouse on a table of its own."""
    with open_warehouse(postgresql, f"t_{uuid.uuid4().hex}") as prepared:
        prepared.prepare(LABELS, KEPT)
        yield prepared


def test_a_connection_that_is_cut_is_replaced(postgresql: str, warehouse: Warehouse, tmp_path: Path) -> None:
    """A server that ends our session in the middle of a load costs one retry."""
    maker = PartMaker(tmp_path)
    part = maker.checked("w1", "a", 100)
    cuts = iter([True])

    def cutting(path: str) -> Any:
        if next(cuts, False):
            run(
                postgresql,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND state LIKE 'active%' AND query LIKE 'COPY%'",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'",
            )
        return opened(path)

    assert load_parts(warehouse, "r", "m", LABELS, KEPT, [part], cutting, planned_at=PLANNED_AT).rows_loaded == 100
    assert warehouse.count(["w1"]).scored == 100


def test_a_cut_connection_is_unavailable_once(postgresql: str) -> None:
    """The error is transient, and the next call has a new connection."""
    with open_warehouse(postgresql, f"t_{uuid.uuid4().hex}", patience_seconds=0) as warehouse:
        assert warehouse.runs() == []
        run(
            postgresql,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'",
        )
        with pytest.raises(WarehouseUnavailable, match="Tried 1 times"):
            warehouse.runs()
        assert warehouse.runs() == []


@pytest.mark.parametrize("made", ["", "CREATE TABLE {} (made_by text)"])
def test_a_schema_that_another_session_makes_meanwhile(postgresql: str, made: str) -> None:
    """Even with IF NOT EXISTS the later one is refused, once: looked at again, and the table is told, or made."""
    schema = f"s_{uuid.uuid4().hex}"
    with (
        adbc_driver_postgresql.dbapi.connect(postgresql) as other,
        other.cursor() as cursor,
        open_warehouse(postgresql, f"{schema}.scores", patience_seconds=60) as warehouse,
        ThreadPoolExecutor(1) as pool,
    ):
        cursor.execute(f"CREATE SCHEMA {schema}")
        if made:
            cursor.execute(made.format(f"{schema}.scores"))
        preparing = pool.submit(warehouse.prepare, LABELS, KEPT)
        _until_blocked(postgresql, schema)
        other.commit()
        if made:
            with pytest.raises(WarehouseError, match="another schema"):
                preparing.result()
        else:
            preparing.result()
            assert warehouse.count(["w1"]) == Counts(0, 0)


def _until_blocked(postgresql: str, words: str) -> None:
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{words}%'"
    until = time.monotonic() + 60
    while run(postgresql, asked) != [(1,)]:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_text_with_nul_is_stored_without_it(postgresql: str, tmp_path: Path) -> None:
    """U+0000, which PostgreSQL cannot hold, becomes U+FFFD and takes nothing else along."""
    maker = PartMaker(tmp_path, kept=pa.schema([("author", pa.string())]))
    rows = maker.rows("a", 2)
    rows = rows.set_column(6, "author", pa.array(["Anna\0Berta", "Carla"]))
    _, work_id, receipt = maker.work(rows, "a")
    table = f"t_{uuid.uuid4().hex}"
    with open_warehouse(postgresql, table) as warehouse:
        warehouse.prepare(LABELS, maker.kept)
        part = CheckedPart(work_id, "a", receipt.part, receipt.digest, 2, 0)
        load_parts(warehouse, "r", "m", LABELS, maker.kept, [part], opened, planned_at=PLANNED_AT)
    assert run(postgresql, f"SELECT author FROM {table} ORDER BY position") == [("Anna\ufffdBerta",), ("Carla",)]


def test_a_load_that_supersedes_uses_the_index(postgresql: str, tmp_path: Path) -> None:
    """Rows of a work id are found by the index, however large the table is."""
    maker, table = PartMaker(tmp_path), f"t_{uuid.uuid4().hex}"
    with open_warehouse(postgresql, table) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        parts = [maker.checked(f"w{at}", f"o{at}", 100) for at in range(300)]
        load_parts(warehouse, "r", "m", LABELS, KEPT, parts, opened, planned_at=PLANNED_AT)
    plan = explain(postgresql, table)
    assert "Index" in plan
    assert "Seq Scan" not in plan


def explain(url: str, table: str) -> str:
    """The plan of a superseding delete."""
    sql = f"DELETE FROM {table} WHERE work_id IN (SELECT unnest(ARRAY['w3', 'w4']))"
    function = f"explain_{table}"
    body = f"DECLARE line text; BEGIN FOR line IN EXECUTE $q$EXPLAIN {sql}$q$ LOOP RETURN NEXT line; END LOOP; END"
    create = f"CREATE FUNCTION {function}() RETURNS SETOF text LANGUAGE plpgsql AS $f${body}$f$"
    return "\n".join(line for (line,) in run(url, f"ANALYZE {table}", create, f"SELECT {function}()"))


@pytest.mark.parametrize(
    ("labels", "kept", "words"),
    [
        (("é" * 32,), 0, "has 64 bytes, of 63"),
        (tuple(f"label {at}" for at in range(1500)), 100, "of 1600 at the most"),
    ],
)
def test_what_postgresql_cannot_hold_is_refused(
    postgresql: str, labels: tuple[str, ...], kept: int, words: str
) -> None:
    """Names that it would cut, and tables that are too wide, are errors before anything is made."""
    schema = pa.schema([(f"kept {at}", pa.string()) for at in range(kept)])
    with open_warehouse(postgresql, f"t_{uuid.uuid4().hex}") as warehouse, pytest.raises(WarehouseError, match=words):
        warehouse.prepare(labels, schema)


def test_a_table_name_that_leaves_no_room_for_suffixes(postgresql: str) -> None:
    """A cut name would make two tables one."""
    with pytest.raises(WarehouseError, match="too long"):
        open_warehouse(postgresql, "t" * 60)


def driver_error(state: str | None, text: str = "no") -> adbc_driver_manager.Error:
    """An error as the driver raises it."""
    status = adbc_driver_manager.AdbcStatusCode.IO
    return adbc_driver_manager.OperationalError(text, status_code=status, sqlstate=state)


@pytest.mark.parametrize("state", [code.ljust(5, "0") for code in SQLSTATES])
def test_each_sqlstate_has_a_type_and_a_next_step(state: str) -> None:
    """The code decides whether a retry helps, whatever the words are."""
    transient = SQLSTATES.get(state, SQLSTATES.get(state[:2], (False, "")))[0]
    error = translated(driver_error(state), Address("postgresql://host/db"))
    assert isinstance(error, WarehouseUnavailable if transient else WarehouseError)
    assert error.next_step


def test_an_unknown_sqlstate_is_permanent() -> None:
    """Unknown errors are not transient; a lost connection has no code at all."""
    address = Address("postgresql://host/db")
    assert isinstance(translated(driver_error("ZZ123"), address), WarehouseError)
    assert isinstance(translated(driver_error(None), address), WarehouseUnavailable)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('FATAL:  password authentication failed for user "u"', WarehouseError),
        ("fe_sendauth: no password supplied", WarehouseError),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "u", database "d", no encryption', WarehouseError),
        ("server does not support SSL, but SSL was required", WarehouseError),
        ("SSL error: certificate verify failed", WarehouseError),
        ("FATAL:  the database system is starting up", WarehouseUnavailable),
        ("FATAL:  the database system is shutting down", WarehouseUnavailable),
        ("FATAL:  sorry, too many clients already", WarehouseUnavailable),
        ('could not translate host name "h" to address: Temporary failure in name resolution', WarehouseUnavailable),
        ("timeout expired", WarehouseUnavailable),
    ],
)
def test_words_of_a_failed_connection(text: str, kind: type[Exception]) -> None:
    """libpq gives no code for these; its words, and PostgreSQL's, are known."""
    error = connecting_error(
        driver_error(None, f"IO: [libpq] Failed to connect: {text}\n"), Address("postgresql://h/d")
    )
    assert isinstance(error, kind)
    assert error.next_step


def test_the_socket_of_the_server_is_shown(postgresql: str) -> None:
    """A message says which server, also where the host is a folder."""
    assert parse_qs(urlsplit(postgresql).query)["host"][0] in Address(postgresql).shown
