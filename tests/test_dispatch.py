from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.utils import key_split
from distributed import Client, LocalCluster, Scheduler, Worker

from corpuscore import stages
from corpuscore.cluster import local_cluster
from corpuscore.dispatch import Dispatch
from corpuscore.errors import ClusterUnavailable, CorpusError, StorageUnavailable
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.records import Partition, ScorerInfo
from corpuscore.scoring.partition import ScoringContext
from corpuscore.stages.dispatching import score_group
from corpuscore.tally import Progress, ProgressCallback, Tally
from corpuscore.tasks import Work
from tests.servers.jobs import MakeJob, write_jsonl
from tests.test_tally import receipt_of

#: Held work waits for a permit of its gate.
_GATES: dict[str, threading.Semaphore] = {}


def held_work(work: Work, context: ScoringContext) -> dict[str, Any]:
    """What a worker does instead of scoring: wait until it is let."""
    _GATES[context.store].acquire()
    return {"receipt": receipt_of(work.work_id).to_json()}


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """One partition ends for each permit; the scoring itself is left out."""
    _GATES[str(tmp_path)] = semaphore = threading.Semaphore(0)
    monkeypatch.setattr("corpuscore.dispatch.run_work", held_work)
    yield semaphore
    semaphore.release(1_000)  # threads of workers that are gone


def _works(count: int) -> list[Work]:
    partition = Partition("/a.jsonl", "1", 1, "jsonl", "bytes", 0, 1)
    return [Work(partition, f"{number:032x}") for number in range(count)]


def _dispatch(client: Any, store: Path, progress: ProgressCallback | None = None) -> Dispatch:
    context = ScoringContext(
        str(store), ReadOptions(), ScoreOptions(), ScorerInfo(("joy",), "softmax", "0", "bert", "fp32", "tiny")
    )
    return Dispatch(client, context, group="score-test", attempt="1", tally=Tally(100, progress))


@asynccontextmanager
async def _cluster() -> AsyncIterator[tuple[Scheduler, Client]]:
    """A scheduler without workers on this event loop, and a client that hears of its size all the time."""
    with dask.config.set({"distributed.client.scheduler-info-interval": "20ms"}):
        async with (
            Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler,
            Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
        ):
            yield scheduler, client


async def _until(condition: Callable[[], bool], running: asyncio.Task[Any]) -> None:
    """Wait for a condition that a running dispatch brings about."""
    while not condition():
        assert not running.done(), running.result()
        await asyncio.sleep(0.01)


def _in_flight(scheduler: Scheduler) -> int:
    return sum(key[0] == "score-test" for key in scheduler.tasks if isinstance(key, tuple))


def test_a_dispatch_is_as_wide_as_its_cluster(
    gate: threading.Semaphore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks a thread are in flight, also when workers have come or gone meanwhile."""
    monkeypatch.setattr("corpuscore.dispatch._FOLLOW_SECONDS", 0.02)

    async def grow_and_shrink() -> int:
        async with _cluster() as (scheduler, client), Worker(scheduler.address, nthreads=1):
            dispatch = _dispatch(client, tmp_path)
            running = asyncio.create_task(dispatch.run(_works(40)))
            await _until(lambda: _in_flight(scheduler) == 2, running)
            more = [await Worker(scheduler.address, nthreads=1) for _ in range(2)]
            await _until(lambda: _in_flight(scheduler) == 6, running)
            for worker in more:
                await worker.close(executor_wait=False)
            await _until(lambda: dispatch._window == 2, running)
            gate.release(12)  # more than there are in flight: each that ends would be replaced
            await _until(lambda: _in_flight(scheduler) == 2, running)
            gate.release(100)
            await running
            return len(dispatch._tally.receipts)

    assert asyncio.run(grow_and_shrink()) == 40


def test_what_nobody_foresaw_is_one_of_our_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's error costs its partition, with its words, and no traceback of Dask; the others go on."""

    def score(partition: Partition, work_id: str, *_: object, **__: object) -> Any:
        if work_id.endswith("3"):
            raise KeyError("no such thing")
        return receipt_of(work_id)

    monkeypatch.setattr("corpuscore.tasks.score_partition", score)

    async def run() -> int:
        async with _cluster() as (scheduler, client), Worker(scheduler.address, nthreads=1):
            dispatch = _dispatch(client, tmp_path)
            with pytest.raises(CorpusError, match=r"Scoring /a.jsonl \[0:1\] failed at test_dispatch.py.*KeyError"):
                await dispatch.run(_works(6))
            return len(dispatch._tally.receipts)

    assert asyncio.run(run()) == 5
    assert "Compute Failed" not in caplog.text


def test_what_is_wrong_with_many_partitions_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same reason for all is one error of its own type; of several reasons, each is named once."""

    def run(words: Callable[[str], str]) -> None:
        def failing(_partition: Partition, work_id: str, *_: object, **__: object) -> Any:
            raise StorageUnavailable(words(work_id))

        monkeypatch.setattr("corpuscore.tasks.score_partition", failing)

        async def dispatched() -> None:
            async with _cluster() as (scheduler, client), Worker(scheduler.address, nthreads=1):
                await _dispatch(client, tmp_path).run(_works(6))

        asyncio.run(dispatched())

    with pytest.raises(StorageUnavailable) as one:
        run(lambda _: "the store is gone")
    assert one.value.value == "the store is gone"
    with pytest.raises(ClusterUnavailable) as several:
        run(lambda work_id: f"store {int(work_id, 16) % 2} is gone")
    assert str(several.value).count("is gone") == 2
    assert "6 partitions could not be scored" in str(several.value)


def test_a_cluster_that_loses_its_workers_for_good_is_given_up(
    gate: threading.Semaphore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long as is said, then the error says how long that was."""
    monkeypatch.setattr("corpuscore.dispatch._FOLLOW_SECONDS", 0.02)
    monkeypatch.setattr("corpuscore.cluster.waiting._LOOK_SECONDS", 0.02)

    async def lose_the_last() -> list[Progress]:
        told: list[Progress] = []
        async with _cluster() as (scheduler, client):
            worker = await Worker(scheduler.address, nthreads=1)
            running = asyncio.create_task(_dispatch(client, tmp_path, told.append).run(_works(40)))
            await _until(lambda: _in_flight(scheduler) == 2, running)
            await worker.close(executor_wait=False)
            with pytest.raises(ClusterUnavailable, match=r"had no worker for 1 s.*WAIT_FOR_WORKERS"):
                await running
            while _in_flight(scheduler):
                await asyncio.sleep(0.01)
        return told

    with dask.config.set({"corpuscore.wait-for-workers": "1s"}):
        assert all(progress.waiting_seconds is not None for progress in asyncio.run(lose_the_last()))


def test_a_limit_of_the_schedulers_own_is_no_other_error(gate: threading.Semaphore, tmp_path: Path) -> None:
    """Dask can be told to fail tasks that no worker takes; that is a cluster without workers too."""

    async def refused() -> None:
        async with _cluster() as (scheduler, client):
            worker = await Worker(scheduler.address, nthreads=1)
            running = asyncio.create_task(_dispatch(client, tmp_path).run(_works(4)))
            await _until(lambda: _in_flight(scheduler) == 2, running)
            await worker.close(executor_wait=False)
            with pytest.raises(ClusterUnavailable, match="no worker.*no-workers-timeout"):
                await running

    with dask.config.set({"distributed.scheduler.no-workers-timeout": "100ms"}):
        asyncio.run(refused())


def test_a_client_that_was_closed_is_a_cluster_that_is_away(gate: threading.Semaphore, tmp_path: Path) -> None:
    """It closes itself when its scheduler does not come back."""

    async def close_under_way() -> None:
        async with _cluster() as (scheduler, client), Worker(scheduler.address, nthreads=1):
            running = asyncio.create_task(_dispatch(client, tmp_path).run(_works(4)))
            await _until(lambda: _in_flight(scheduler) == 2, running)
            await client.close()
            with pytest.raises(ClusterUnavailable, match="does not answer"):
                await running
            gate.release(100)

    asyncio.run(close_under_way())


@pytest.fixture
def planned(make_job: MakeJob, tmp_path: Path) -> str:
    """A run of six small partitions."""
    for name in "abcdef":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(4)])
    return stages.plan(make_job()).run


def test_a_worker_that_comes_late_is_waited_for(
    planned: str, empty_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Log and progress say that there is none; what comes then scores everything."""
    told: list[Progress] = []

    def start_one(progress: Progress) -> None:
        if not told:
            empty_cluster.scale(1)
        told.append(progress)

    with caplog.at_level(logging.WARNING):
        scored = stages.score(planned, cluster=empty_cluster.scheduler_address, progress=start_one)
    assert scored.partitions == 6
    assert (told[0].done, told[0].waiting_seconds is None) == (0, False)
    assert (told[-1].done, told[-1].waiting_seconds) == (6, None)
    assert "has no worker" in caplog.text


def test_scoring_tasks_are_known_to_be_long(planned: str) -> None:
    """A local cluster's scheduler expects ten minutes of the first one; half of that goes with each seen."""
    with local_cluster(workers=1, device="cpu") as cluster:
        stages.score(planned, cluster=cluster.scheduler_address)
        assert cluster.scheduler
        expected = {name: prefix.duration_average for name, prefix in cluster.scheduler.task_prefixes.items()}
    assert [name for name in expected if "score" in name] == ["score"]
    assert expected["score"] > 600 / 2**6


@pytest.mark.parametrize("run_id", ["012345abcdef", "abcdefabcdef", "aaaaaa"])
def test_keys_of_all_runs_have_one_prefix(run_id: str) -> None:
    """Dask takes words of letters into a key's prefix, and a run's id may be one."""
    assert key_split((score_group(run_id, "scores"), "1", "1")) == "score"
    assert run_id[:6] in score_group(run_id, "scores")


def test_an_adaptive_cluster_starts_from_nothing(planned: str, empty_cluster: LocalCluster) -> None:
    """Waiting for its first worker is what makes it start one."""
    empty_cluster.adapt(minimum=0, maximum=2, interval="100ms")
    assert stages.score(planned, cluster=empty_cluster.scheduler_address).partitions == 6
