"""The warehouse: connections that are cut, a server that restarts, locks, rights, and a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from tests.faults.case import case
from tests.faults.corpus import objects
from tests.faults.disks import small_disk
from tests.faults.profile import Profile
from tests.faults.scene import Scene
from tests.faults.tables import duckdb_table
from tests.servers.pg_proxy import Fault, at_message, nth

_POSTGRESQL = Profile(warehouse="postgresql")


def _cut_at_commit(scene: Scene, fault: Fault) -> None:
    proxy = scene.servers.database.proxy
    proxy.rule = nth(scene.some(1, 6), "COMMIT", fault)
    scene.succeeds(scene.start())
    assert proxy.faults, "no connection was cut"


@case("warehouse: cut before COMMIT", profile=_POSTGRESQL)
def before_commit(scene: Scene) -> None:
    """The connection ends before the COMMIT arrives."""
    _cut_at_commit(scene, Fault.CUT)


@case("warehouse: cut in COMMIT", profile=_POSTGRESQL)
def in_commit(scene: Scene) -> None:
    """The connection ends when half of the COMMIT has arrived."""
    _cut_at_commit(scene, Fault.HALF)


@case("warehouse: cut after COMMIT", profile=_POSTGRESQL, short=1)
def after_commit(scene: Scene) -> None:
    """The COMMIT is carried out, and the connection ends instead of its answer."""
    _cut_at_commit(scene, Fault.ANSWER)


@case("warehouse: cut at any message", profile=_POSTGRESQL)
def any_message(scene: Scene) -> None:
    """The connection ends at, in or after any message of the client."""
    fault = scene.random.choice((Fault.CUT, Fault.HALF, Fault.ANSWER))
    scene.servers.database.proxy.rule = at_message(scene.some(0, 120), fault)
    scene.succeeds(scene.start())


@case("warehouse: cut again and again", profile=_POSTGRESQL)
def again(scene: Scene) -> None:
    """Of all messages, one of 150 is the last of its connection."""
    chance = scene.random.random
    scene.servers.database.proxy.rule = lambda _: Fault.CUT if chance() < 1 / 150 else None
    scene.finish(scene.start(), reruns=2)


@case("warehouse: down for some seconds", profile=_POSTGRESQL)
def down(scene: Scene) -> None:
    """Connections end and new ones are refused for three to eight seconds, at some moment."""
    with scene.at(scene.random.choice(("plan", "validate", "load", "record", "report")), role="driver") as command:
        scene.servers.database.proxy.refuse()
        scene.servers.database.proxy.cut_all()
        threading.Timer(scene.random.uniform(3.0, 8.0), scene.servers.database.proxy.refuse, (False,)).start()
    scene.succeeds(command)


@case("warehouse: server restarted", profile=_POSTGRESQL)
def restarted(scene: Scene) -> None:
    """The server is ended at once, as by a crash, and started again, at some moment."""
    with scene.at(scene.random.choice(("plan", "validate", "load", "record", "report")), role="driver") as command:
        pass
    scene.pause(0.5)
    scene.servers.database.restart()
    scene.succeeds(command)


@case("warehouse: a table is locked", profile=_POSTGRESQL)
def locked(scene: Scene) -> None:
    """Another session holds a lock on the table for some seconds."""
    scene.succeeds(scene.start())
    name = scene.random.choice(sorted(scene.objects))
    scene.put(name, objects(2)[name])
    with scene.at("load", role="driver") as command:
        release = scene.servers.database.lock(f"LOCK TABLE {scene.table.name} IN ACCESS EXCLUSIVE MODE")
    scene.pause(5.0)
    release()
    scene.succeeds(command)


@case("warehouse: a table is locked for good", profile=_POSTGRESQL)
def locked_for_good(scene: Scene) -> None:
    """Another session holds a lock and does not end: said after a stated time; the same command later goes on."""
    scene.succeeds(scene.start())
    name = scene.random.choice(sorted(scene.objects))
    scene.put(name, objects(2)[name])
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE"] = "4s"
    with scene.at("load", role="driver") as command:
        release = scene.servers.database.lock(f"LOCK TABLE {scene.table.name} IN ACCESS EXCLUSIVE MODE")
    try:
        scene.fails(command, "lock")
    finally:
        release()
    scene.succeeds(scene.start())


@case("warehouse: server stopped", profile=_POSTGRESQL)
def stopped(scene: Scene) -> None:
    """The server gets SIGSTOP and answers nothing, its connections open: said after a stated time; then it is woken."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE"] = "5s"
    with scene.at(scene.random.choice(("validate", "load", "record", "report")), role="driver") as command:
        wake = scene.servers.database.stop()
    try:
        scene.fails(command)
    finally:
        wake()
    scene.succeeds(scene.start())


@case("warehouse: rights revoked", profile=_POSTGRESQL)
def revoked(scene: Scene) -> None:
    """The right to insert is taken away before the load, and given back before the same command runs again."""
    scene.succeeds(scene.start())
    name = scene.random.choice(sorted(scene.objects))
    scene.put(name, objects(2)[name])
    table, role = scene.table.name, scene.servers.database.plain_role()
    for each in (table, f"{table}_rejects", f"{table}_ledger", f"{table}_runs"):
        scene.servers.database.psql(f"ALTER TABLE {each} OWNER TO {role}")
    scene.arguments["warehouse"] = scene.table.url.replace("postgres@", f"{role}@")
    with scene.at("load", role="driver") as command:
        scene.servers.database.psql(f"REVOKE INSERT ON {table} FROM {role}")
    scene.fails(command, "permission")
    scene.servers.database.psql(f"GRANT INSERT ON {table} TO {role}")
    scene.succeeds(scene.start())


@case("warehouse: the server's disk is full", profile=_POSTGRESQL)
def server_full(scene: Scene) -> None:
    """The disk of the tables has no room for the rows; then it has."""
    disk = small_disk(scene, "tablespace", 1_200)
    space = scene.servers.database.tablespace(disk.folder)
    scene.later(lambda: scene.servers.database.drop_tablespace(space, scene.table.name))
    url = scene.table.url
    scene.arguments["warehouse"] = f"{url}?options=-c%20default_tablespace%3D{space}"
    with scene.at("load", role="driver") as command:
        disk.fill(leaving_kib=scene.some(0, 16) * 8)
    scene.fails(command, "disk")
    disk.empty()
    scene.succeeds(scene.start())


@case("warehouse: DuckDB, its disk is full")
def duckdb_full(scene: Scene) -> None:
    """The disk of the DuckDB file has no room for the rows: said as what it is; then it has."""
    disk = small_disk(scene, "warehouse", 4_000)
    scene.table = duckdb_table(disk.folder / "scores.duckdb")
    with scene.at("load", role="driver") as command:
        disk.fill(leaving_kib=scene.some(0, 15) * 4)
    scene.fails(command, "disk")
    disk.empty()
    scene.succeeds(scene.start())


@case("warehouse: DuckDB, open elsewhere")
def duckdb_open(scene: Scene) -> None:
    """Another process has the file open for some seconds."""
    with scene.at(scene.random.choice(("validate", "load", "report")), role="driver") as command:
        seconds = scene.random.uniform(1.0, 6.0)
        path = scene.table.url.removeprefix("duckdb:///")
        code = f"import duckdb, time; c = duckdb.connect({path!r}); print(1, flush=True); time.sleep({seconds})"
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert other.stdout
        assert other.stdout.readline()
    scene.finish(command, reruns=1)
    other.communicate()


@case("warehouse: DuckDB, killed in the load", short=1)
def duckdb_killed(scene: Scene) -> None:
    """The command gets SIGKILL at any moment of its load into a file."""
    command = scene.start()
    scene.reached(command, "load")
    scene.pause(0.6)
    command.send(signal.SIGKILL)
    scene.killed(command)
    scene.succeeds(scene.start())
