"""A load that is cut off, killed or late: its rows once, its row of the runs table, and a word on what has moved."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from corpuscore import stages
from corpuscore.errors import WarehouseError
from corpuscore.job import Job
from corpuscore.runs import Run
from corpuscore.stages.planning import describe
from corpuscore.warehouse import RunRow, open_warehouse
from tests.servers.jobs import MakeJob, write_jsonl
from tests.servers.pg_proxy import Fault, after, once, pg_proxy
from tests.servers.postgresql import new_table, run
from tests.servers.warehouses import Target

IDS = [f"d{number:03}" for number in range(60)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two objects."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:])
    return tmp_path / "corpus"


def checked(job: Job) -> str:
    """Everything but the load; the address of the run."""
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run)
    return planned.run


def recorded(job: Job) -> list[RunRow]:
    """The rows of the runs table."""
    with open_warehouse(job.warehouse, job.table) as warehouse:
        assert warehouse.summary(describe(job).labels).scored == len(IDS)
        return warehouse.runs()


_KILLED = """
import os, signal, sys
from corpuscore import stages
from corpuscore.warehouse.sql import SqlWarehouse

SqlWarehouse.record_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
stages.load(sys.argv[1])
"""


def test_a_load_that_is_killed_before_its_row_is_recorded_by_the_next(
    corpus: Path, make_job: MakeJob, sql_target: Target
) -> None:
    """All rows are there, the row of the run is not: the next call writes it and loads nothing; then all is still."""
    job = make_job(warehouse=sql_target.url, table=sql_target.table)
    uri = checked(job)
    killed = subprocess.run([sys.executable, "-c", _KILLED, uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert recorded(job) == []
    assert stages.status(uri).stage == "validated"
    assert stages.load(uri).rows_loaded == 0
    (row,) = recorded(job)
    assert (row.run_id, row.state, row.rows, row.scored) == (Run.open(uri).id, "done", len(IDS), len(IDS))
    assert list(row.label_means) == list(describe(job).labels)
    assert stages.status(uri).stage == "loaded"
    stages.load(uri)
    assert recorded(job) == [row]


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.HALF, Fault.ANSWER])
def test_a_commit_without_an_answer_is_counted_and_recorded(
    corpus: Path, make_job: MakeJob, postgresql: str, fault: Fault
) -> None:
    """Whatever became of the COMMIT, the summary tells what this load did, and the run has its row."""
    job = make_job(warehouse=postgresql, table=new_table())
    uri = checked(job)
    with pg_proxy(postgresql) as proxy:
        proxy.rule = after("COPY", once("COMMIT", fault))
        loaded = stages.load(uri, warehouse=proxy.url)
        assert [what for _, what in proxy.faults] == [fault]
    assert (loaded.rows_loaded, loaded.work_ids_loaded, loaded.work_ids_skipped) == (len(IDS), 2, 0)
    assert [row.scored for row in recorded(job)] == [len(IDS)]


def test_a_row_that_is_refused_is_recorded_later(corpus: Path, make_job: MakeJob, postgresql: str) -> None:
    """A runs table that takes no row fails the load after its rows; when it takes them, the next load writes it."""
    table = new_table()
    job = make_job(warehouse=postgresql, table=table)
    uri = checked(job)
    with open_warehouse(postgresql, table) as warehouse:
        warehouse.prepare(describe(job).labels, pa.schema([]))
    run(postgresql, f"ALTER TABLE {table}_runs ADD CONSTRAINT never CHECK (run_id = '') NOT VALID")
    with pytest.raises(WarehouseError, match="constraint"):
        stages.load(uri)
    run(postgresql, f"ALTER TABLE {table}_runs DROP CONSTRAINT never")
    assert recorded(job) == []
    stages.load(uri)
    assert [row.scored for row in recorded(job)] == [len(IDS)]


def test_objects_that_moved_since_the_plan_are_named(corpus: Path, make_job: MakeJob) -> None:
    """What was deleted or replaced meanwhile is loaded as it was planned, and told, with what to do."""
    job = make_job(departed="remove")
    uri = checked(job)
    (corpus / "a.jsonl").unlink()
    write_jsonl(corpus / "b.jsonl", IDS[20:], text="{} changed")
    loaded = stages.load(uri)
    assert (loaded.rows_loaded, loaded.objects_departed) == (len(IDS), 0)
    vanished, replaced = loaded.findings
    assert (vanished["check"], vanished["level"], vanished["values"]["rows"]) == ("vanished", "warning", 20)
    assert "a.jsonl), with 20 documents, were deleted" in vanished["message"]
    assert "--departed remove" in vanished["message"]
    assert (replaced["check"], replaced["values"]["examples"]) == ("replaced", [(corpus / "b.jsonl").as_uri()])
    assert "plan again" in replaced["message"]
    again = checked(job)
    assert (stages.load(again).rows_removed, stages.load(again).findings) == (20, [])


def test_a_corpus_that_is_gone_since_the_plan_is_loaded_as_planned(corpus: Path, make_job: MakeJob) -> None:
    """Where no object is left, each of them is named as deleted; the load itself has its parts."""
    uri = checked(make_job())
    for path in corpus.iterdir():
        path.unlink()
    corpus.rmdir()
    loaded = stages.load(uri)
    assert [finding["check"] for finding in loaded.findings] == ["vanished"]
    assert loaded.findings[0]["values"]["objects"] == 2


def test_a_removed_object_is_not_brought_back_by_an_earlier_run(
    corpus: Path, make_job: MakeJob, sql_target: Target
) -> None:
    """A run that saw an object loads after one that removed it: its rows stay away, and it says so."""
    job = make_job(warehouse=sql_target.url, table=sql_target.table, departed="remove")
    stages.load(checked(job))
    earlier = checked(job)
    (corpus / "a.jsonl").unlink()
    assert stages.load(checked(job)).rows_removed == 20
    late = stages.load(earlier)
    assert (late.rows_loaded, late.objects_outdated, late.rows_outdated) == (0, 1, 20)
    with open_warehouse(job.warehouse, job.table) as warehouse:
        assert warehouse.summary(describe(job).labels).scored == 40
    assert stages.load(checked(job)).findings == []
