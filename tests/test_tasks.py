"""Documents that end worker processes, or hold them for good, in runs on a real cluster."""

from __future__ import annotations

import itertools
import logging
import random
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import orjson
import pytest

from corpuscore import stages
from corpuscore.cluster import local_cluster
from corpuscore.errors import CorpusError, ValidationFailed
from corpuscore.job import Job
from corpuscore.runs import Run
from tests.scoring.poison import spike
from tests.servers.jobs import MakeJob, query, run_all

pytestmark = pytest.mark.timeout(600)  # workers end and start again

OBJECTS, DOCUMENTS = 8, 40
_WORDS = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=3)]
Poison = dict[tuple[int, int], str]


@pytest.fixture
def poisoned_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a cluster of two workers which die of poison, and in which no more than two such are found."""
    more = "import corpuscore.scoring.alone.search as search; search.MOST_FOUND = 2"
    spike(tmp_path / "site", monkeypatch, more)
    with local_cluster(workers=2, device="cpu") as cluster:
        yield cluster.scheduler_address


def _write(folder: Path, poison: Poison) -> None:
    folder.mkdir()
    for number in range(OBJECTS):
        texts = [
            f"poison {poison[number, at]} of {word}" if (number, at) in poison else f"the {word} day"
            for at, word in enumerate(_WORDS[number * DOCUMENTS : (number + 1) * DOCUMENTS])
        ]
        lines = [orjson.dumps({"id": f"d{number}-{at}", "text": text}) for at, text in enumerate(texts)]
        (folder / f"{number}.jsonl").write_bytes(b"\n".join(lines))


def _table(job: Job) -> dict[str, tuple[Any, ...]]:
    rows = query(job, "select document_id, work_id, joy, fear, anger from scores")
    assert len(rows) == len({row[0] for row in rows})
    return {row[0]: row[1:] for row in rows}


def _check(job: Job, undisturbed: Job, poison: Poison) -> None:
    """Each document in the table or in the rejects, once; all that was not poison as in an undisturbed run."""
    expected, found = _table(undisturbed), _table(job)
    bad = {f"d{number}-{at}" for number, at in poison}
    assert len(expected) == OBJECTS * DOCUMENTS
    assert found == {name: row for name, row in expected.items() if name not in bad}
    rejects = query(job, "select document_id, reason, status from scores_rejects")
    assert sorted(name for name, _, _ in rejects) == sorted(bad)
    assert {reason for _, reason, _ in rejects} <= {"killed", "hung"}
    assert {status for _, _, status in rejects} == {"rejected"}


def test_poison_costs_itself_alone(
    poisoned_cluster: str, make_job: MakeJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In two partitions, two documents of one of them: the run ends well at the first attempt, the table holds all the
    others with the scores and work ids of an undisturbed run, and the log names those that are rejects."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    one, two = chosen.sample(range(OBJECTS), 2)
    poison: Poison = {
        (one, at): kind for at, kind in zip(chosen.sample(range(DOCUMENTS), 2), ["SIGSEGV", "EXIT"], strict=True)
    }
    poison[two, chosen.randrange(DOCUMENTS)] = "SIGABRT"
    _write(tmp_path / "corpus", poison)
    undisturbed = make_job(work=str(tmp_path / "quiet"), warehouse=f"duckdb:///{tmp_path}/quiet.duckdb")
    run_all(undisturbed)
    job = make_job(cluster=poisoned_cluster, max_reject_fraction=0.05)
    with caplog.at_level(logging.WARNING):
        report = run_all(job)
    assert (report.rows, report.rejected) == (OBJECTS * DOCUMENTS, 3)
    assert report.reasons == {"killed": 3}
    _check(job, undisturbed, poison)
    for number, at in poison:
        assert f"d{number}-{at}" in caplog.text
    assert f"{one}.jsonl [0:0] was on 2 workers when they ended: it is tried alone" in caplog.text
    assert run_all(job).nothing_new


def test_a_document_that_hangs_costs_itself_alone(poisoned_cluster: str, make_job: MakeJob, tmp_path: Path) -> None:
    """Its worker is restarted, its partition tried alone, and the reject says for how long it was waited for."""
    poison: Poison = {(3, 17): "HANG"}
    _write(tmp_path / "corpus", poison)
    undisturbed = make_job(work=str(tmp_path / "quiet"), warehouse=f"duckdb:///{tmp_path}/quiet.duckdb")
    run_all(undisturbed)
    job = make_job(cluster=poisoned_cluster, max_reject_fraction=0.05)
    with dask.config.set({"corpuscore.stall": "15s"}):
        assert run_all(job).reasons == {"hung": 1}
    _check(job, undisturbed, poison)
    ((detail,),) = query(job, "select detail from scores_rejects")
    assert detail == "the process that scored it gave no sign of life for 15 s"


def test_a_document_beyond_the_memory_limit_costs_itself_alone(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers are ended by their nannies for it, then a process by the same limit; the reject says so."""
    poison: Poison = {(1, 30): "MEMORY"}
    _write(tmp_path / "corpus", poison)
    undisturbed = make_job(work=str(tmp_path / "quiet"), warehouse=f"duckdb:///{tmp_path}/quiet.duckdb")
    run_all(undisturbed)
    spike(tmp_path / "site", monkeypatch)
    monkeypatch.setattr("corpuscore.cluster.local.MEMORY_LIMIT", 2 * 900 * 2**20)
    with local_cluster(workers=2, device="cpu") as cluster:
        job = make_job(cluster=cluster.scheduler_address, max_reject_fraction=0.05)
        assert run_all(job).reasons == {"killed": 1}
    _check(job, undisturbed, poison)
    ((detail,),) = query(job, "select detail from scores_rejects")
    assert re.fullmatch(r"the process that scored it took [\d,]+ MiB; its limit is 855", detail)


def test_rejects_over_the_limit_stop_the_load_as_always(
    poisoned_cluster: str, make_job: MakeJob, tmp_path: Path
) -> None:
    """Documents that end their process count like any reject; scoring has ended all the same."""
    _write(tmp_path / "corpus", {(5, at): "SIGKILL" for at in (8, 9)})
    job = make_job(cluster=poisoned_cluster, max_reject_fraction=0.005)
    with pytest.raises(ValidationFailed, match="killed"):
        run_all(job)
    assert stages.pending(stages.plan(job).run) == 0


def test_a_partition_of_poison_fails_by_itself(poisoned_cluster: str, make_job: MakeJob, tmp_path: Path) -> None:
    """One with more than may be found is an error that names them, in bounded time; all others have their receipts."""
    _write(tmp_path / "corpus", {(2, at): "EXIT" for at in range(DOCUMENTS)})
    planned = stages.plan(make_job(cluster=poisoned_cluster))
    with pytest.raises(
        CorpusError, match=r"2.jsonl \[0:0\] has more than 2 documents .*'d2-0'.*exit status 3"
    ) as caught:
        stages.score(planned.run)
    assert "partition-rows" not in str(caught.value)
    run = Run.open(planned.run)
    assert [Path(run.manifest.partition(at).uri).name for at in run.pending()] == ["2.jsonl"]
