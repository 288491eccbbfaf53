from __future__ import annotations

import asyncio

import dask
import pytest
from distributed import LocalCluster

from corpuscore.cluster import connected, threads_of, wait_for_workers
from corpuscore.errors import ClusterError, ClusterUnavailable
from tests.servers.dask import ask


def _wait(address: str) -> int:
    async def wait() -> int:
        async with connected(address) as client:
            await wait_for_workers(client)
            return threads_of(client)

    return asyncio.run(wait())


def test_a_cluster_without_workers_is_given_up_in_the_end(empty_cluster: LocalCluster) -> None:
    """The error says how long it waited, and what waits longer."""
    with (
        dask.config.set({"corpuscore.wait-for-workers": "1s"}),
        pytest.raises(ClusterUnavailable, match="no worker for 1 s.*WAIT_FOR_WORKERS"),
    ):
        _wait(empty_cluster.scheduler_address)


def test_a_cluster_that_starts_workers_for_work_is_given_some(empty_cluster: LocalCluster) -> None:
    """An adaptive cluster has no worker until it is asked for something."""
    empty_cluster.adapt(minimum=0, maximum=1, interval="100ms")
    assert ask(empty_cluster.scheduler_address, sum, [1, 2]) == 3


@pytest.mark.parametrize("said", ["soon", "3 fortnights", None])
def test_a_time_to_wait_that_is_none_is_named(said: object, empty_cluster: LocalCluster) -> None:
    """Value, rule and where to correct it."""
    with (
        dask.config.set({"corpuscore.wait-for-workers": said}),
        pytest.raises(ClusterError, match=r"wait-for-workers is .*90s or 15m.*DASK_CORPUSCORE"),
    ):
        _wait(empty_cluster.scheduler_address)
