from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import dask
import pytest

from corpuscore import stages
from corpuscore.cluster import connected, run_one
from corpuscore.errors import ClusterUnavailable, CorpusError, ModelError, PermanentError, SchedulerLost
from tests.cluster.held import describing_for_ever
from tests.servers.dask import ask, running_scheduler, running_worker
from tests.servers.jobs import MakeJob, write_jsonl

pytestmark = pytest.mark.timeout(150)


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse() -> None:
    raise ModelError("value 7", rule="a value is below 5", next_step="give a smaller one")


def test_what_a_worker_returns_or_refuses_comes_back(dask_address: str) -> None:
    """A result as it is, and an error of our own as the type that it was, with all its sentences."""
    assert ask(dask_address, sum, [1, 2]) == 3
    with pytest.raises(ModelError, match="value 7. a value is below 5. Next: give a smaller one."):
        ask(dask_address, _refuse)


def test_what_nobody_foresaw_comes_back_in_our_words(dask_address: str) -> None:
    """Somebody else's error says what was done, where it was raised, and what it says."""
    with pytest.raises(PermanentError, match=r"loads on a worker failed at decoder.py:\d+ \(JSONDecodeError: "):
        ask(dask_address, json.loads, "x")


def test_a_task_that_ends_its_workers_is_named() -> None:
    """Dask's KilledWorker comes in our words, with the next step."""
    with (
        running_scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as scheduler,
        running_worker(scheduler.address),
        pytest.raises(ClusterUnavailable, match="a question of a test ended 2 workers"),
    ):
        ask(scheduler.address, _end_process)


def test_a_task_has_a_limit_and_is_spoken_of(dask_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes too long, the error says what took how long; before that, a line says that it is waited for."""
    monkeypatch.setattr("corpuscore.patience.LINE_SECONDS", 0.5)
    monkeypatch.setattr("corpuscore.cluster.single.LINE_SECONDS", 0.5)
    said: list[str] = []

    async def wait() -> Any:
        async with connected(dask_address) as client:
            return await run_one(client, time.sleep, 4, what="Sleeping", limit=2, say=said.append)

    with pytest.raises(ClusterUnavailable, match="Sleeping on tcp://.* took more than 2 s"):
        asyncio.run(wait())
    assert any(line.startswith("Sleeping on tcp://") for line in said)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_model_that_is_described_does_not_outwait_its_scheduler(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """`plan` asks a worker for the model; a scheduler that goes away meanwhile ends it with that error."""
    monkeypatch.setattr("corpuscore.stages.planning.describe_scorer", describing_for_ever)
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 2.0)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["a"])
    with (
        running_scheduler() as scheduler,
        running_worker(scheduler.address),
        dask.config.set({"corpuscore.silence": "3s"}),
    ):
        ask(scheduler.address, os.getpid)

        async def lose_it() -> None:
            planning = asyncio.to_thread(stages.planning.describe, make_job(cluster=scheduler.address))
            waiting = asyncio.create_task(planning)
            await asyncio.sleep(2)
            scheduler.kill() if how == "killed" else scheduler.stop()
            await asyncio.wait_for(waiting, 60)

        with pytest.raises(SchedulerLost):
            asyncio.run(lose_it())


def test_expected_errors_leave_no_traceback_at_the_worker(make_job: MakeJob, tmp_path: Path) -> None:
    """An object that was replaced is an error of ours: it comes back as data, and the worker's log stays quiet."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", ["a", "b"])
    run = stages.plan(make_job()).run
    path.write_bytes(b"")
    log = tmp_path / "worker.log"
    with (
        running_scheduler() as scheduler,
        running_worker(scheduler.address, log=log),
        pytest.raises(CorpusError, match=r"a\.jsonl"),
    ):
        stages.score(run, cluster=scheduler.address)
    assert "Start worker" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert "Compute Failed" not in log.read_text()
