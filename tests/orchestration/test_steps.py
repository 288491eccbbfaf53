from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from corpuscore import stages
from corpuscore.errors import ValidationFailed
from corpuscore.orchestration import steps
from corpuscore.orchestration.form import job_params
from tests.servers.jobs import write_jsonl


@pytest.fixture
def params(tmp_path: Path, tiny_model: str, dask_address: str) -> dict[str, Any]:
    """The form, filled in; empty fields are null."""
    for name in "abc":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(5)])
    values = {name: param.value for name, param in job_params({}).items()}
    return values | {
        "corpus": [str(tmp_path / "corpus")],
        "id_columns": ["id"],
        "keep_columns": None,
        "model": tiny_model,
        "device": "cpu",
        "work": str(tmp_path / "work"),
        "warehouse": f"duckdb:///{tmp_path}/scores.duckdb",
        "cluster": dask_address,
    }


def test_the_steps_make_a_table(params: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """From params to the summary, which is in the log for whoever opens it."""
    with caplog.at_level(logging.INFO):
        planned = steps.plan(params)
        stages.score(planned.run)
        steps.validate(planned.run, params)
        loaded = steps.load(planned.run, params)
        report = steps.report(planned.run, params)
    assert (loaded.rows_loaded, report["rows_in_table"]) == (15, 15)
    assert "3 partitions, 3 of them to be scored" in caplog.text
    assert "in the table" in caplog.text


def test_findings_are_in_the_log(params: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An error stops the load, and the log names it with its check."""
    planned = steps.plan(params)
    with caplog.at_level(logging.INFO), pytest.raises(ValidationFailed):
        steps.validate(planned.run, params)  # nothing was scored
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_a_local_cluster_is_started_once(params: dict[str, Any]) -> None:
    """Mapped tasks would start workers of their own side by side; a cluster with an address takes them all."""
    planned = steps.plan(params)
    assert steps.chunks(planned, params) == planned.chunks
    assert steps.chunks(planned, params | {"cluster": "local"}) == [[0, 3]]


@pytest.mark.parametrize(
    ("warehouse", "uri"),
    [
        ("postgresql://me:secret@db:5432/analytics", "postgresql://db:5432/analytics/scores"),
        ("postgresql://me@/analytics?host=/run/pg", "postgresql://localhost/analytics/scores"),
        ("duckdb:////data/scores.duckdb", "file:///data/scores.duckdb/scores"),
        ("parquet:////data/scores", "file:///data/scores/scores"),
        ("parquet+s3://bucket/prefix", "s3://bucket/prefix/scores"),
        ("iceberg://prod?token=secret", "iceberg://prod/scores"),
        ("iceberg+https://host:8181/api?token=secret", "iceberg+https://host:8181/api/scores"),
    ],
)
def test_the_asset_names_the_table_and_nobody(warehouse: str, uri: str) -> None:
    """Other DAGs are scheduled by this URI; logins don't belong there."""
    assert steps.table_asset({"warehouse": warehouse, "table": "scores"}).uri == uri
