"""A real Dask cluster of worker processes, once a session; its workers reach the session's S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster

from corpuscore.cluster import local_cluster
from tests.servers.s3 import S3Server


@pytest.fixture(scope="session")
def dask_address(s3_server: S3Server) -> Iterator[str]:
    """Address of the scheduler of two CPU workers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        with local_cluster(workers=2, device="cpu") as cluster:
            yield cluster.scheduler_address


@pytest.fixture
def empty_cluster() -> Iterator[LocalCluster]:
    """A cluster that has no worker yet; those to come are threads of this process."""
    with LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster
