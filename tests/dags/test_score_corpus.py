from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import CronTriggerTimetable
from airflow.sdk.definitions.dag import DAG
from airflow.sdk.definitions.mappedoperator import MappedOperator

from corpuscore.job import Job
from corpuscore.orchestration.operator import ScoreChunkOperator
from corpuscore.orchestration.retries import RetryByType
from infra.stack.home import CHECKOUT
from tests.servers.jobs import query, write_jsonl

FOLDER = CHECKOUT / "dags"
GIVEN = {"corpus": ["s3://bucket/"], "work": "s3://bucket/work/", "warehouse": "conn://warehouse"}


def _bag() -> DagBag:
    return DagBag(dag_folder=str(FOLDER))


@pytest.fixture(scope="module")
def dag() -> DAG:
    """The DAG as a site without any configuration sees it."""
    bag = _bag()
    assert not bag.import_errors
    return bag.dags["score_corpus"]


def test_the_folder_imports() -> None:
    """Every DAG file can be read."""
    assert not _bag().import_errors


def test_the_graph_is_the_way_of_the_data(dag: DAG) -> None:
    """plan >> score >> validate >> load >> report."""
    order = ["plan", "score", "validate", "load", "report"]
    assert [task.task_id for task in dag.topological_sort()] == order
    for earlier, later in itertools.pairwise(order):
        assert later in dag.task_dict[earlier].downstream_task_ids


def test_a_run_without_new_work_goes_through(dag: DAG) -> None:
    """Nothing to score means that score is skipped; what follows runs all the same, and says so."""
    assert dag.task_dict["validate"].trigger_rule == "none_failed"


def test_every_task_is_retried_with_growing_pauses(dag: DAG) -> None:
    """One policy for all: growing pauses, an end to them, and permanent errors at once."""
    for task in dag.tasks:
        options = task.partial_kwargs if isinstance(task, MappedOperator) else vars(task)
        assert options["retries"] > 1
        assert options["retry_exponential_backoff"] > 1
        assert options["max_retry_delay"] <= timedelta(hours=1)
        assert isinstance(options["retry_policy"], RetryByType)


def test_scoring_is_deferrable_and_comes_from_the_package(dag: DAG) -> None:
    """A triggerer cannot import a trigger from a DAG file."""
    assert dag.task_dict["score"].operator_class is ScoreChunkOperator
    assert ScoreChunkOperator.__module__.startswith("corpuscore.")


def test_the_form_is_the_job(dag: DAG) -> None:
    """The trigger form has all fields of the command line."""
    assert list(dag.params) == list(Job.model_fields)


def test_schedule_and_defaults_are_set_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daily run needs two settings and no edit."""
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__SCHEDULE", "15 4 * * *")
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__DEFAULTS", json.dumps(GIVEN))
    bag = _bag()
    assert not bag.import_errors
    dag = bag.dags["score_corpus"]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.expression == "15 4 * * *"
    assert {name: dag.params[name] for name in GIVEN} == GIVEN


def test_a_schedule_without_a_corpus_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen at once in the UI, not in the morning after."""
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__SCHEDULE", "@daily")
    (error,) = _bag().import_errors.values()
    assert "param" in error


@pytest.mark.airflow
@pytest.mark.timeout(600)
def test_a_run_in_one_process(tmp_path: Path, tiny_model: str, dask_address: str) -> None:
    """`airflow dags test` (dag.test()) maps, defers and loads, without scheduler, triggerer or API server."""
    for name in "ab":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(30)])
    values = {
        "corpus": [str(tmp_path / "corpus")],
        "id_columns": ["id"],
        "model": tiny_model,
        "work": str(tmp_path / "work"),
        "warehouse": f"duckdb:///{tmp_path}/scores.duckdb",
        "cluster": dask_address,
    }
    said = _airflow(tmp_path, "db", "migrate") + _airflow(
        tmp_path, "dags", "test", "score_corpus", "--conf", json.dumps(values)
    )
    assert "state=success, run_type=manual" in said, said[-4000:]
    assert "up_for_retry" not in said
    assert query(Job.build(values), "select count(*), count(distinct document_id) from scores") == [(60, 60)]


def _airflow(tmp_path: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(FOLDER),
    }
    program = str(Path(sys.executable).parent / "airflow")
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    return said
