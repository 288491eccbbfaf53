"""What fails on the way costs time, never a row: workers that die, and a dispatcher that dies."""

from __future__ import annotations

import itertools
import os
import signal
import string
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import Client

from corpuscore import stages
from corpuscore.cluster import local_cluster
from corpuscore.tally import Progress
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl

pytestmark = pytest.mark.timeout(600)  # processes are started, killed and started again

OBJECTS, DOCUMENTS = 24, 100


@pytest.fixture
def corpus(tmp_path: Path) -> int:
    """Objects with documents of different texts; their number."""
    names = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=3)]
    for number in range(OBJECTS):
        ids = names[number * DOCUMENTS : (number + 1) * DOCUMENTS]
        write_jsonl(tmp_path / "corpus" / f"{number:02}.jsonl", ids)
    return OBJECTS * DOCUMENTS


def test_a_worker_that_is_killed_loses_nothing(corpus: int, make_job: MakeJob) -> None:
    """SIGKILL to a worker in the middle of a run: its partitions run elsewhere, and every document is there once."""
    with local_cluster(workers=2, device="cpu") as cluster, Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))
        killed = threading.Event()

        def kill_once(progress: Progress) -> None:
            if progress.done >= 1 and not killed.is_set():
                os.kill(victim, signal.SIGKILL)
                killed.set()

        job = make_job(cluster=cluster.scheduler_address)
        planned = stages.plan(job)
        stages.score(planned.run, progress=kill_once)
        assert killed.is_set()
        assert run_all(job).rows_in_table == corpus
    assert query(job, "select count(*), count(distinct document_id) from scores") == [(corpus, corpus)]


_SCORE = "import sys; from corpuscore import stages; stages.score(sys.argv[1])"


def test_a_dispatcher_that_is_killed_is_taken_over(corpus: int, make_job: MakeJob, tmp_path: Path) -> None:
    """SIGKILL to the process that dispatches: what was scored is kept, and the next one does the rest."""
    job = make_job()
    planned = stages.plan(job)
    process = subprocess.Popen([sys.executable, "-c", _SCORE, planned.run])
    while not any((tmp_path / "work" / "receipts").rglob("*.json")) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 0 < OBJECTS - stages.pending(planned.run) <= OBJECTS
    report = run_all(job)
    assert (report.rows, report.rows_in_table) == (corpus, corpus)
    assert query(job, "select count(*), count(distinct document_id) from scores") == [(corpus, corpus)]
