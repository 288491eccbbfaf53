from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

from corpuscore.cluster import local_cluster
from corpuscore.cluster.keeper import _start_no_more, trouble_of
from corpuscore.errors import ClusterUnavailable
from tests.servers.dask import ask, worker_processes

pytestmark = pytest.mark.timeout(120)


#: Processes that were there before a test: servers of the session, which are not a test's to kill.
_others: set[int] = set()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Whatever happens to workers, none of them is left."""
    _others.update(worker_processes(os.getpid()))
    yield
    left = _workers()
    _others.clear()
    assert not left


def _workers() -> set[int]:
    """Those of the test."""
    return set(worker_processes(os.getpid())) - _others


def _present(cluster: LocalCluster) -> int:
    assert cluster.scheduler
    return len(cluster.scheduler.workers)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def _signal_new(known: set[int], seconds: float, sign: signal.Signals = signal.SIGKILL) -> None:
    """A signal to the next worker process, so long after it was born."""
    while not (new := _workers() - known):
        time.sleep(0.005)
    time.sleep(seconds)
    for pid in new:
        os.kill(pid, sign)
    known |= new


def _killed() -> set[int]:
    """SIGKILL to all that there are."""
    pids = _workers()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_is_killed_while_it_starts_is_started_again(seed: int) -> None:
    """Killed in its work, and its successor at some moment of its start: the cluster has its workers again."""
    moment = random.Random(seed).uniform(0.0, 3.0)
    with local_cluster(1, "cpu") as cluster:
        first = ask(cluster.scheduler_address, os.getpid)
        known = _workers()
        os.kill(first, signal.SIGKILL)
        _signal_new(known, moment)
        _until(lambda: _present(cluster) == 1)
        assert ask(cluster.scheduler_address, os.getpid) not in {first, *known}, f"seed {seed}"


def test_a_storm_of_kills_ends_with_all_workers_there() -> None:
    """Every worker that is there is killed, again and again, at random moments: in the end all are back."""
    moments = random.Random(7)
    with local_cluster(2, "cpu") as cluster:
        known: set[int] = set()
        for _ in range(6):
            known |= _killed()
            time.sleep(moments.uniform(0.1, 1.5))
        _until(lambda: _present(cluster) == 2)
        assert ask(cluster.scheduler_address, os.getpid) not in known


def test_the_first_start_may_fail() -> None:
    """A worker that is killed before the cluster was ever complete is started again, too."""
    known = _workers()
    killer = threading.Thread(target=_signal_new, args=(known, 0.5))
    killer.start()
    with local_cluster(1, "cpu") as cluster:
        killer.join()
        assert ask(cluster.scheduler_address, os.getpid) not in known


def test_workers_that_cannot_start_are_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After some replacements in a row the error says so, instead of trying for ever."""
    monkeypatch.setattr("corpuscore.cluster.keeper._REPLACEMENTS", 2)
    monkeypatch.setattr("corpuscore.cluster.keeper._RESTART_SECONDS", 0.2)
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(ClusterUnavailable, match="ended 2 times in a row"), local_cluster(1, "cpu"):
        pass


def test_a_cluster_that_loses_the_means_to_start_workers_tells_its_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who works on it hears it at once, and not after waiting for workers."""
    monkeypatch.setattr("corpuscore.cluster.keeper._REPLACEMENTS", 1)
    monkeypatch.setattr("corpuscore.cluster.keeper._RESTART_SECONDS", 0.2)
    with local_cluster(1, "cpu") as cluster:
        worker = ask(cluster.scheduler_address, os.getpid)
        (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ClusterUnavailable, match="right after it was started"):
            ask(cluster.scheduler_address, time.sleep, 60)
        assert trouble_of(cluster.scheduler_address)
    assert trouble_of(cluster.scheduler_address) is None


def test_a_stopped_worker_does_not_keep_its_cluster() -> None:
    """SIGSTOP to a worker: the cluster ends all the same, and the process with it."""
    with local_cluster(2, "cpu") as cluster:
        os.kill(ask(cluster.scheduler_address, os.getpid), signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_that_ends_while_workers_start_ends(seed: int) -> None:
    """Whatever its nannies are in the middle of: nothing waits, and nothing is left."""
    with local_cluster(2, "cpu"):
        _killed()
        time.sleep(random.Random(seed).uniform(0.0, 2.0))
        began = time.monotonic()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_born_while_its_cluster_ends_is_not_left(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nanny has asked for a process, and it is there only after the nanny was told to end."""
    start = BaseProcess.start
    born: list[BaseProcess] = []

    def slowly(process: BaseProcess) -> None:
        born.append(process)
        time.sleep(1.0 + seed)
        start(process)

    with local_cluster(1, "cpu"):
        monkeypatch.setattr(BaseProcess, "start", slowly)
        _killed()
        _until(lambda: bool(born))
    _until(lambda: born[0].exitcode is not None)
    assert born[0].exitcode == -signal.SIGKILL


def test_workers_leave_interrupts_to_their_cluster() -> None:
    """Ctrl-C reaches them, too, while they start and afterwards; they stay until they are asked to end."""
    known = _workers()
    interrupter = threading.Thread(target=_signal_new, args=(known, 0.2, signal.SIGINT))
    interrupter.start()
    with local_cluster(1, "cpu") as cluster:
        interrupter.join()
        worker = ask(cluster.scheduler_address, os.getpid)
        os.kill(worker, signal.SIGINT)
        assert ask(cluster.scheduler_address, os.getpid) == worker
        assert worker in known


def test_workers_have_their_share_of_the_memory() -> None:
    """The limit is the machine's or the container's memory by the number of workers; nothing is spilled or paused."""
    with local_cluster(2, "cpu") as cluster:
        assert cluster.scheduler
        limits = {worker.memory_limit for worker in cluster.scheduler.workers.values()}
        settings = ask(cluster.scheduler_address, _memory_settings)
    assert limits == {MEMORY_LIMIT // 2}
    assert settings == {"target": False, "spill": False, "pause": False, "terminate": 0.95}


def _memory_settings() -> dict[str, object]:
    names = ("target", "spill", "pause", "terminate")
    return {name: dask.config.get(f"distributed.worker.memory.{name}") for name in names}


def test_a_worker_beyond_its_memory_ends_and_another_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nanny ends it at 95 %, before the system takes whom it likes; the task is told as one that ends workers."""
    monkeypatch.setattr("corpuscore.cluster.local.MEMORY_LIMIT", 2 * 500 * 2**20)
    with local_cluster(2, "cpu") as cluster:
        assert cluster.scheduler
        with pytest.raises(ClusterUnavailable, match="ended . workers"):
            ask(cluster.scheduler_address, _take_memory)
        _until(lambda: _present(cluster) == 2)


def _take_memory() -> int:
    held = []
    while True:
        held.append(bytearray(os.urandom(1) * (20 * 2**20)))
        time.sleep(0.02)


class _Heavy:
    """What is slow to take down with the interpreter, such as the tables of an S3 client."""

    def __del__(self) -> None:
        time.sleep(30)


def test_workers_leave_when_asked_whatever_they_hold(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that was closed ends at once; its nanny has nothing to wait for, to kill, or to warn of."""
    with local_cluster(1, "cpu") as cluster:
        ask(cluster.scheduler_address, _load_much)
    assert "still alive" not in caplog.text


def _load_much() -> None:
    sys.modules["heavy"] = _Heavy()  # type: ignore[assignment]


def test_a_worker_that_ends_while_its_cluster_does_is_not_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its nanny is kept from it without an error, of which Dask would log a traceback."""
    with local_cluster(1, "cpu") as cluster:
        (nanny,) = cluster.workers.values()
        _start_no_more(nanny)
        (pid,) = _workers()
        os.kill(pid, signal.SIGKILL)
        _until(lambda: "Restarting worker" in caplog.text)
        time.sleep(0.5)
    assert not [record for record in caplog.records if record.exc_info]


def test_whoever_interrupts_does_not_wait_for_workers() -> None:
    """They are killed, whatever they are at: parts count by their receipts, so nothing counts by halves."""
    with pytest.raises(KeyboardInterrupt):
        _interrupt()
    assert time.monotonic() - _interrupted[-1] < 5


_interrupted: list[float] = []


def _interrupt() -> None:
    with local_cluster(1, "cpu"):
        (pid,) = _workers()
        os.kill(pid, signal.SIGSTOP)  # one that would not answer
        _interrupted.append(time.monotonic())
        raise KeyboardInterrupt
