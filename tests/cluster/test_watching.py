from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import psutil
import pytest

from corpuscore import stages
from corpuscore.cluster import check, connected
from corpuscore.errors import ClusterError, SchedulerLost
from corpuscore.scoring.alone import Limits
from corpuscore.summaries import ScoreSummary
from corpuscore.tally import Progress
from tests.cluster.held import LOADING, READING, hanging_work, held_work, let_go
from tests.servers.dask import running_scheduler, running_worker
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl

pytestmark = pytest.mark.timeout(150)

OBJECTS, DOCUMENTS = 8, 5


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits of seconds, and looks to match."""
    monkeypatch.setattr("corpuscore.cluster.watching._ASK_SECONDS", 0.3)
    monkeypatch.setattr("corpuscore.cluster.watching._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 2.0)
    monkeypatch.setattr("corpuscore.cluster.connecting.CLOSE_SECONDS", 1.0)
    monkeypatch.setattr("corpuscore.stages.dispatching._AGAIN_SECONDS", 0.2)
    with dask.config.set({"corpuscore.wait-for-scheduler": "60s", "corpuscore.wait-for-workers": "60s"}):
        yield


@pytest.fixture
def planned(make_job: MakeJob, tmp_path: Path) -> str:
    """A run of small partitions, one an object."""
    for number in range(OBJECTS):
        write_jsonl(tmp_path / "corpus" / f"{number:02}.jsonl", [f"{number}-{at}" for at in range(DOCUMENTS)])
    return stages.plan(make_job()).run


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """One partition is scored; the others wait for a word."""
    monkeypatch.setattr("corpuscore.dispatch.run_work", held_work)


@contextmanager
def _scoring(
    run: str, cluster: str, progress: Callable[[Progress], None] | None = None
) -> Iterator[Future[ScoreSummary]]:
    """A run that is being scored in a thread of its own; it is not waited for when the test has failed."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(stages.score, run, cluster=cluster, progress=progress)
    finally:
        pool.shutdown(wait=False)


def _until(condition: Callable[[], bool], scoring: Future[ScoreSummary]) -> None:
    while not condition():
        assert not scoring.done(), scoring.result()
        time.sleep(0.02)


def _receipts(store: Path) -> int:
    return len(list((store / "receipts").rglob("*.json")))


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("away_seconds", [0.0, 4.0])
def test_a_scheduler_that_comes_back_is_connected_to_again(
    planned: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, away_seconds: float
) -> None:
    """Killed in the middle, and back at once or later: what has no receipt is scored, and all of it is counted."""
    told: list[Progress] = []
    with ExitStack() as first, caplog.at_level(logging.WARNING):
        scheduler = first.enter_context(running_scheduler())
        first.enter_context(running_worker(scheduler.address))
        with _scoring(planned, scheduler.address, told.append) as scoring:
            _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
            first.close()
            time.sleep(away_seconds)
            let_go(tmp_path / "work")
            port = int(scheduler.address.rpartition(":")[2])
            with running_scheduler(port=port) as again, running_worker(again.address):
                summary = scoring.result(100)
    assert (summary.partitions, summary.rows) == (OBJECTS, OBJECTS * DOCUMENTS)
    assert (told[-1].done, told[-1].total) == (OBJECTS, OBJECTS)
    assert _receipts(tmp_path / "work") == OBJECTS
    assert "Dask scheduler at" in caplog.text


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_scheduler_that_is_gone_for_good_is_given_up(
    planned: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """After the time that is set, with what sets it; the log and the progress say what is waited for meanwhile."""
    told: list[Progress] = []
    limits = {"corpuscore.wait-for-scheduler": "3s", "corpuscore.silence": "2s"}
    with (
        dask.config.set(limits),
        running_scheduler() as scheduler,
        running_worker(scheduler.address),
        _scoring(planned, scheduler.address, told.append) as scoring,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        scheduler.kill() if how == "killed" else scheduler.stop()
        with pytest.raises(SchedulerLost, match="was not back after 3 s.*WAIT_FOR_SCHEDULER") as caught:
            scoring.result(60)
    assert scheduler.address in str(caught.value)
    assert any(progress.waiting_for == "no scheduler" for progress in told)
    assert "waited 0 of 3 s" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.usefixtures("held")
def test_a_scheduler_that_was_stopped_may_go_on(planned: str, tmp_path: Path) -> None:
    """Its silence ends the connection; when it wakes up, it is connected to again."""
    with (
        dask.config.set({"corpuscore.silence": "2s"}),
        running_scheduler() as scheduler,
        running_worker(scheduler.address),
        _scoring(planned, scheduler.address) as scoring,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        scheduler.stop()
        time.sleep(5)
        scheduler.go_on()
        let_go(tmp_path / "work")
        assert scoring.result(100).partitions == OBJECTS


def test_a_scheduler_that_was_never_there_is_not_waited_for(planned: str) -> None:
    """A wrong address is told at once."""
    began = time.monotonic()
    with pytest.raises(SchedulerLost, match="does not answer"):
        stages.score(planned, cluster="tcp://127.0.0.1:1")
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("held")
def test_a_worker_that_hangs_is_said_and_restarted(
    planned: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGSTOP to a worker process: after the silence that is allowed, its nanny starts another, which does the rest."""
    with (
        dask.config.set({"corpuscore.silence": "3s"}),
        running_scheduler() as scheduler,
        running_worker(scheduler.address) as worker,
        _scoring(planned, scheduler.address) as scoring,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        os.kill(worker.child(), signal.SIGSTOP)
        let_go(tmp_path / "work")
        assert scoring.result(100).partitions == OBJECTS
    assert "has said nothing for 3 s: it is restarted" in caplog.text


@pytest.mark.usefixtures("held")
def test_a_machine_that_hangs_loses_its_partitions_to_others(
    planned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job: MakeJob
) -> None:
    """SIGSTOP to nanny and worker: others do its partitions; what it writes when it wakes up doubles nothing."""
    monkeypatch.setattr("corpuscore.cluster.watching._RESTART_SECONDS", 2.0)
    with (
        dask.config.set({"corpuscore.silence": "3s"}),
        running_scheduler() as scheduler,
        running_worker(scheduler.address) as frozen,
        _scoring(planned, scheduler.address) as scoring,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        frozen.stop()
        let_go(tmp_path / "work")
        with running_worker(scheduler.address):
            assert scoring.result(100).partitions == OBJECTS
            frozen.go_on()
            report = run_all(make_job(cluster=scheduler.address))
    assert report.rows_in_table == OBJECTS * DOCUMENTS
    assert query(make_job(), "select count(distinct document_id) from scores") == [(OBJECTS * DOCUMENTS,)]


@pytest.mark.usefixtures("held")
def test_the_number_of_workers_is_watched(planned: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line says when one is lost, and one when as many are there again."""
    with (
        running_scheduler() as scheduler,
        _scoring(planned, scheduler.address) as scoring,
        running_worker(scheduler.address),
        running_worker(scheduler.address) as second,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        _until(lambda: _workers(scheduler.address) == 2, scoring)
        time.sleep(1)  # until the watch has seen both
        second.kill()
        _until(lambda: "1 of 2 workers are left" in caplog.text, scoring)
        with running_worker(scheduler.address):
            _until(lambda: "2 of 2 workers are there again" in caplog.text, scoring)
            let_go(tmp_path / "work")
            assert scoring.result(100).partitions == OBJECTS


def _workers(address: str) -> int:
    async def count() -> int:
        async with connected(address) as client:
            return await check(client)

    return asyncio.run(count())


@pytest.mark.usefixtures("held")
def test_a_worker_that_joins_is_checked_too(planned: str, tmp_path: Path) -> None:
    """One of another version ends the run, named, before it can score anything."""
    facts = tmp_path / "other" / "corpuscore-0.0.1.dist-info" / "METADATA"
    facts.parent.mkdir(parents=True)
    facts.write_text("Metadata-Version: 2.1\nName: corpuscore\nVersion: 0.0.1\n")
    path = f"{tmp_path}/other:{os.environ.get('PYTHONPATH', '')}"
    with (
        running_scheduler() as scheduler,
        running_worker(scheduler.address),
        _scoring(planned, scheduler.address) as scoring,
    ):
        _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
        with (
            running_worker(scheduler.address, PYTHONPATH=path),
            pytest.raises(ClusterError, match=r"corpuscore 0\.0\.1, this client"),
        ):
            scoring.result(60)


@pytest.mark.parametrize(("name", "said"), [(READING, "made no progress"), (LOADING, "its model did not load")])
def test_a_partition_that_makes_no_progress_is_tried_alone(
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
) -> None:
    """It is named, its worker is restarted, and where nothing hangs, in a process of its own, it is scored."""
    monkeypatch.setattr("corpuscore.dispatch.run_work", hanging_work)
    monkeypatch.setattr("corpuscore.dispatch.limits", lambda: Limits(stall_seconds=60.0, loading_seconds=60.0))
    for number in range(4):
        write_jsonl(tmp_path / "corpus" / f"{number:02}.jsonl", [f"{number}-{at}" for at in range(DOCUMENTS)])
    write_jsonl(tmp_path / "corpus" / name, ["hangs"])
    run = stages.plan(make_job()).run
    limits = {"corpuscore.stall": "3s", "corpuscore.loading": "3s"}
    with running_scheduler() as scheduler, running_worker(scheduler.address) as worker, dask.config.set(limits):
        before = worker.child()
        with caplog.at_level(logging.WARNING):
            assert stages.score(run, cluster=scheduler.address).rejected == 0
        assert re.search(f"{name}.*{said}.* for . s on tcp.*: it is tried alone, after the others", caplog.text)
        while psutil.pid_exists(before):
            time.sleep(0.05)
    assert stages.pending(run) == 0


@pytest.mark.usefixtures("held")
def test_a_scheduler_restarted_again_and_again_costs_time_only(planned: str, tmp_path: Path) -> None:
    """Three losses in a row, at other moments each: the run ends, and each partition has one receipt."""
    moments = iter((0.3, 1.5, 2.7))
    with ExitStack() as now:
        scheduler = now.enter_context(running_scheduler())
        now.enter_context(running_worker(scheduler.address))
        port = int(scheduler.address.rpartition(":")[2])
        with _scoring(planned, scheduler.address) as scoring:
            _until(lambda: _receipts(tmp_path / "work") == 1, scoring)
            for seconds in moments:
                now.close()
                now.enter_context(running_scheduler(port=port))
                now.enter_context(running_worker(scheduler.address))
                time.sleep(seconds)
            let_go(tmp_path / "work")
            assert scoring.result(100).partitions == OBJECTS
    assert _receipts(tmp_path / "work") == OBJECTS
