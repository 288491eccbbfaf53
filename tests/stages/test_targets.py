"""What a job says of its table: that it is looked at before anything is scored, and what the load makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from corpuscore import stages
from corpuscore.errors import JobError, WarehouseError
from corpuscore.stages import planning
from tests.servers.jobs import LABELS, MakeJob, run_all, write_jsonl

IDS = [f"d{number}" for number in range(6)]


def test_a_table_in_a_schema_that_is_not_there(make_job: MakeJob, tmp_path: Path) -> None:
    """Made by the load; and a run that finds its work done has nothing to complain of."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    job = make_job(table="analytics.emotions", warehouse=f"duckdb:///{tmp_path}/analytics.duckdb")
    for loaded in (6, 0):
        stages.check_warehouse(job)
        assert run_all(job).rows_loaded == loaded
    with duckdb.connect(tmp_path / "analytics.duckdb") as connection:
        assert connection.sql("SELECT count(*) FROM analytics.analytics.emotions").fetchall() == [(6,)]


def test_a_run_with_the_columns_that_it_asks_for(make_job: MakeJob, tmp_path: Path) -> None:
    """The same parts fill another table otherwise: nothing is scored again. The report is of kept labels."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    assert run_all(make_job()).scored_partitions == 1
    options = {"labels": ["anger"], "threshold": 0.2, "top_label": True, "score_type": "float16"}
    job = make_job(warehouse=f"parquet:///{tmp_path}/lake", **options)
    report = run_all(job)
    assert (report.scored_partitions, report.rows_loaded, list(report.label_means)) == (0, 6, ["anger"])
    with pytest.raises(WarehouseError, match="at least 0.2' instead of .*at least 0.3"):
        stages.check_warehouse(make_job(warehouse=job.warehouse, **{**options, "threshold": 0.3}))


def test_a_label_that_the_model_has_not(make_job: MakeJob, tmp_path: Path) -> None:
    """Said by the plan, with those that it has."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    with pytest.raises(JobError, match=f"has no label 'hope'.*{', '.join(LABELS)}.*--label"):
        stages.plan(make_job(labels=["joy", "hope"]))


def test_another_run_that_is_loading_is_no_reason_not_to_score(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is locked is there; the load waits for it longer than the look before the run."""
    job = make_job()
    script = f"import duckdb, sys; c = duckdb.connect({str(tmp_path / 'scores.duckdb')!r}); print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    other.stdout.readline()
    monkeypatch.setattr(planning, "_PATIENCE_SECONDS", 0.1)
    stages.check_warehouse(job)
    other.communicate("\n")
    assert "not checked before scoring, since another writer has it" in caplog.text
