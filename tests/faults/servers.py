"""What the runs of a lane share: a Dask cluster, an S3 server behind a proxy, a PostgreSQL server, a model."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Self

from infra.stack.home import CHECKOUT
from tests.faults.clock import Clock, make_clock
from tests.faults.cluster import Cluster
from tests.faults.control import INSIDE, Control
from tests.faults.database import Database
from tests.faults.stack import LaneStack
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, environment_for, running_s3_server

#: Of every process of a run and of its cluster: waits whose limits are seconds.
_PATIENCE = {
    "DASK_CORPUSCORE__STALL": "15s",
    "DASK_CORPUSCORE__SILENCE": "8s",
    "DASK_CORPUSCORE__WAIT_FOR_SCHEDULER": "30s",
    "DASK_CORPUSCORE__WAIT_FOR_WORKERS": "60s",
    "DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE": "60s",
    "DASK_CORPUSCORE__WAIT_FOR_SERVICE": "60s",
    "DASK_CORPUSCORE__SERVICE_ANSWER": "5s",
}


def _path() -> str:
    """PYTHONPATH of a process of a run: the hooks, then the sources."""
    return os.pathsep.join(map(str, [INSIDE, CHECKOUT / "pipeline", CHECKOUT]))


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
            "PYTHONPATH": _path(),
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
        if "database" in self.__dict__:
            self.database.heal()

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
    def database(self) -> Database:
        """A real PostgreSQL server, and the way to it that runs take."""
        return self._ends.enter_context(Database())

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
