from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import dask
import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.triggers.base import TriggerEvent
from distributed import Client, LocalCluster, Scheduler

from corpuscore import stages
from corpuscore.errors import ClusterUnavailable, CorpuscoreError, CorpusError, SchedulerLost, from_json
from corpuscore.orchestration.access import ClusterAccess
from corpuscore.orchestration.clients import look_at, shared_client
from corpuscore.orchestration.trigger import ScoreChunkTrigger, progress_logger
from corpuscore.scoring.partition import ScoringContext
from corpuscore.tally import Progress
from corpuscore.tasks import Work, run_work
from tests.cluster.held import held_work, let_go
from tests.servers.dask import running_scheduler, running_worker
from tests.servers.jobs import MakeJob, write_jsonl

NOBODY = "tcp://127.0.0.1:1"


def _trigger(run: str, stop: int, cluster: str) -> ScoreChunkTrigger:
    return ScoreChunkTrigger(run=run, start=0, stop=stop, cluster=cluster, dashboard="http://dask/status")


async def _fired(trigger: ScoreChunkTrigger) -> list[TriggerEvent]:
    return [event async for event in trigger.run()]


def test_a_trigger_survives_its_way_through_the_database() -> None:
    """The triggerer makes an equal one from path and arguments, which hold no secret."""
    trigger = _trigger("s3://bucket/runs/1", 9, "conn://gpus")
    path, arguments = trigger.serialize()
    assert import_string(path)(**arguments).serialize() == (path, arguments)


def test_a_chunk_is_scored(make_job: MakeJob, tmp_path: Path, dask_address: str) -> None:
    """The trigger fires once, with the counts of its own chunk; the other chunk is left alone."""
    for name in "abc":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(5)])
    run = stages.plan(make_job()).run
    (event,) = asyncio.run(_fired(_trigger(run, 2, dask_address)))
    assert (event.payload["summary"]["partitions"], event.payload["summary"]["scored"]) == (2, 10)
    assert event.payload["dashboard"] == "http://dask/status"
    assert stages.pending(run, (0, 2)) == 0
    assert stages.pending(run) == 1


#: Until it is set, scoring tasks wait at their worker.
_LET = threading.Event()


def run_when_let(work: Work, context: ScoringContext) -> dict[str, Any]:
    """A scoring task that lasts as long as a test wants."""
    _LET.wait()
    return run_work(work, context)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The event that lets scoring tasks end."""
    _LET.clear()
    monkeypatch.setattr("corpuscore.dispatch.run_work", run_when_let)
    yield _LET
    _LET.set()


def test_two_attempts_do_not_end_each_other(
    make_job: MakeJob, tmp_path: Path, empty_cluster: LocalCluster, held: threading.Event
) -> None:
    """A cleared task starts again before its first trigger is cancelled: the second one goes through all the same."""
    for number in range(6):
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", [f"{number}-{at}" for at in range(40)])
    run = stages.plan(make_job()).run

    async def scoring_tasks(count: int) -> None:
        assert empty_cluster.scheduler
        while sum(str(key).startswith("('score") for key in list(empty_cluster.scheduler.tasks)) != count:
            await asyncio.sleep(0.01)

    async def clear_while_deferred() -> TriggerEvent:
        first, second = (_trigger(run, 6, empty_cluster.scheduler_address) for _ in range(2))
        empty_cluster.scale(1)
        cleared = asyncio.create_task(_fired(first))
        await scoring_tasks(2)
        again = asyncio.create_task(_fired(second))
        await scoring_tasks(4)
        cleared.cancel()
        await first.on_kill()
        await scoring_tasks(2)
        held.set()
        return (await again)[0]

    assert "summary" in asyncio.run(clear_while_deferred()).payload
    assert stages.pending(run) == 0


def test_an_error_keeps_its_type(make_job: MakeJob, tmp_path: Path, dask_address: str) -> None:
    """An object that changed after the plan fails for good, naming what happened."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", ["a", "b"])
    run = stages.plan(make_job()).run
    path.write_bytes(b"")
    (event,) = asyncio.run(_fired(_trigger(run, 1, dask_address)))
    error = from_json(event.payload["error"])
    assert isinstance(error, CorpusError)
    assert "a.jsonl" in str(error)


def test_a_cluster_that_is_away_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow tries again later."""
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 1)
    with pytest.raises(ClusterUnavailable, match="does not answer"):
        asyncio.run(look_at(ClusterAccess(NOBODY)))


def test_a_cluster_without_workers_is_no_reason_to_hold_a_slot(empty_cluster: LocalCluster) -> None:
    """The task defers all the same; its trigger waits for the first worker."""
    assert asyncio.run(look_at(ClusterAccess(empty_cluster.scheduler_address))).workers == 0


def test_waiting_for_workers_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's log says what it waits for, and for how long by now."""
    monkeypatch.setattr("corpuscore.orchestration.trigger._REPORT_SECONDS", 0)
    said: list[str] = []
    progress_logger(said.append)(Progress(3, 100, 30, 0, 5.0, 60.0, waiting_seconds=75.0))
    assert said == ["3 of 100 partitions, no worker for 75 s"]


def test_triggers_share_a_client(dask_address: str) -> None:
    """A thousand mapped tasks hold one connection; the last one closes it."""

    async def two() -> bool:
        access = ClusterAccess(dask_address)
        async with shared_client(access) as one:
            async with shared_client(access) as other:
                same = one is other
            assert one.status == "running"
        return same and one.status == "closed"

    assert asyncio.run(two())


@pytest.mark.parametrize("first_out", [0, 1])
def test_no_client_outlives_a_scheduler_that_restarts(first_out: int) -> None:
    """Who asks while the shared client is cut off gets another; each is closed by the last one who uses it."""

    async def restart() -> list[Client]:
        users = [AsyncExitStack(), AsyncExitStack()]
        scheduler = await Scheduler(host="127.0.0.1", port=0, dashboard_address=":0")
        access = ClusterAccess(scheduler.address)
        old = await users[0].enter_async_context(shared_client(access))
        await scheduler.close()
        while old.status == "running":
            await asyncio.sleep(0.01)
        asked = asyncio.create_task(users[1].enter_async_context(shared_client(access)))
        port = int(access.address.rpartition(":")[2])
        async with Scheduler(host="127.0.0.1", port=port, dashboard_address=":0"):
            new = await asked
            while old.status != "running":  # it finds its way back by itself
                await asyncio.sleep(0.01)
            for user in (users[first_out], users[1 - first_out]):
                await user.aclose()
            return [old, new]

    old, new = asyncio.run(restart())
    assert old is not new
    assert (old.status, new.status) == ("closed", "closed")


def test_progress_is_told_now_and_then() -> None:
    """One line for the end, none for each of many partitions."""
    lines: list[str] = []
    report = progress_logger(lines.append)
    for done in range(1, 101):
        report(Progress(done, 100, done * 10, 1, 50.0, 100.0 - done))
    assert lines == ["100 of 100 partitions, 1,000 documents, 1 rejected, 50 a second"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits of seconds, and looks to match."""
    monkeypatch.setattr("corpuscore.cluster.watching._ASK_SECONDS", 0.3)
    monkeypatch.setattr("corpuscore.cluster.watching._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 2.0)
    monkeypatch.setattr("corpuscore.cluster.connecting.CLOSE_SECONDS", 1.0)
    with dask.config.set({"corpuscore.wait-for-scheduler": "60s", "corpuscore.silence": "3s"}):
        yield


@pytest.fixture
def chunks(make_job: MakeJob, tmp_path: Path) -> str:
    """A run of two chunks with four partitions each."""
    for number in range(8):
        write_jsonl(tmp_path / "corpus" / f"{number:02}.jsonl", [f"{number}-{at}" for at in range(5)])
    return stages.plan(make_job()).run


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_deferred_chunks_outlive_their_scheduler(
    chunks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Two triggers share a client; the scheduler goes, and another comes to its address: both fire with all counted."""
    monkeypatch.setattr("corpuscore.dispatch.run_work", held_work)

    async def lose_and_find() -> list[TriggerEvent]:
        with ExitStack() as first:
            scheduler = first.enter_context(running_scheduler())
            first.enter_context(running_worker(scheduler.address, threads=8))  # the one that sets out finds a thread
            triggers = [
                ScoreChunkTrigger(run=chunks, start=at, stop=at + 4, cluster=scheduler.address, dashboard="")
                for at in (0, 4)
            ]
            fired = [asyncio.create_task(_fired(trigger)) for trigger in triggers]
            while not list((tmp_path / "work" / "receipts").rglob("*.json")):
                await asyncio.sleep(0.05)
            if how == "stopped":
                scheduler.stop()
                await asyncio.sleep(5)
            await asyncio.to_thread(first.close)
            let_go(tmp_path / "work")
            port = int(scheduler.address.rpartition(":")[2])
            with running_scheduler(port=port) as again, running_worker(again.address):
                return [event for events in await asyncio.gather(*fired) for event in events]

    events = asyncio.run(asyncio.wait_for(lose_and_find(), 140))
    assert [event.payload["summary"]["partitions"] for event in events] == [4, 4]
    assert stages.pending(chunks) == 0


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_stays_away_fails_the_chunk_in_the_end(chunks: str) -> None:
    """Also one that was away before the trigger came: it is waited for, then the event holds a transient error."""
    with dask.config.set({"corpuscore.wait-for-scheduler": "3s"}):
        (event,) = asyncio.run(asyncio.wait_for(_fired(_trigger(chunks, 4, NOBODY)), 60))
    error = from_json(event.payload["error"])
    assert isinstance(error, SchedulerLost)
    assert "was not back after 3 s" in str(error)


@pytest.mark.usefixtures("impatient")
def test_those_who_wait_for_one_connection_hear_of_its_failure_together() -> None:
    """Hundreds of triggers do not try one after the other, each for as long as a connection may take."""

    async def ask_for(access: ClusterAccess) -> CorpuscoreError:
        with pytest.raises(SchedulerLost) as caught:
            async with shared_client(access):
                raise AssertionError("nobody answers there")
        return caught.value

    async def many() -> float:
        began = time.monotonic()
        await asyncio.gather(*(ask_for(ClusterAccess(NOBODY)) for _ in range(50)))
        return time.monotonic() - began

    assert asyncio.run(many()) < 50


@pytest.mark.usefixtures("impatient")
def test_a_trigger_that_is_cancelled_while_connecting_leaves_no_client() -> None:
    """Its coroutine may end at any moment."""

    async def cancel() -> list[str]:
        before = set(Client._instances)
        with running_scheduler() as scheduler:
            scheduler.stop()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_entered(ClusterAccess(scheduler.address)), 0.5)
        return [client.status for client in Client._instances if client not in before]

    async def _entered(access: ClusterAccess) -> None:
        async with shared_client(access):
            raise AssertionError("nobody answers there")

    assert set(asyncio.run(cancel())) <= {"closed"}
