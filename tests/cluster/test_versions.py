from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corpuscore.cluster import check, connected
from corpuscore.cluster.versions import differences
from tests.servers.dask import running_scheduler, running_worker


@pytest.mark.parametrize(
    ("what", "theirs"), [("dask", "2020.1.0"), ("distributed", None), ("corpuscore", "0.0.1"), ("python", "3.9.1")]
)
def test_other_versions_on_a_worker_are_named(what: str, theirs: str | None) -> None:
    """Worker, package and both versions stand in the message."""
    here = {"python": "3.11.7.final.0", "dask": "2026.7.1", "distributed": "2026.7.1", "corpuscore": "0.1.0"}
    (found,) = differences({"packages": here}, {"tcp://w:1": {"packages": {**here, what: theirs}}})
    assert "tcp://w:1" in found
    assert "not installed" in found if theirs is None else theirs.rsplit(".", 1)[0] in found


def test_workers_show_what_they_do(dask_address: str) -> None:
    """Each worker has its rows and its tasks in the scheduler's metrics; being checked again changes no figure."""

    async def shown() -> list[dict[str, Any]]:
        async with connected(dask_address) as client:
            assert client.scheduler is not None
            assert await check(client) == await check(client) == 2
            while True:
                workers = (await client.scheduler.identity(n_workers=-1))["workers"].values()
                if all("rows_scored" in worker["metrics"] for worker in workers):
                    return [worker["metrics"] for worker in workers]
                await asyncio.sleep(0.05)

    for metrics in asyncio.run(shown()):
        assert isinstance(metrics["rows_scored"], int)
        assert metrics["in_work"] == {}


def test_a_worker_that_does_not_answer_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is stopped: the other is checked all the same, within the time that is set."""
    monkeypatch.setattr("corpuscore.cluster.versions.ANSWER_SECONDS", 2.0)

    async def count(address: str, workers: int) -> int:
        async with connected(address) as client:
            while client.scheduler is None or len((await client.scheduler.identity())["workers"]) < workers:
                await asyncio.sleep(0.05)
            return await check(client)

    with (
        running_scheduler() as scheduler,
        running_worker(scheduler.address),
        running_worker(scheduler.address) as other,
    ):
        assert asyncio.run(count(scheduler.address, 2)) == 2
        other.stop()
        assert asyncio.run(asyncio.wait_for(count(scheduler.address, 2), 30)) == 1
