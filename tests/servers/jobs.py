"""Small corpora, a tiny random classifier, and jobs that bring them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from corpuscore import stages
from corpuscore.job import Job
from corpuscore.report import Report
from tests.scoring.checkpoints import write_checkpoint

LABELS = ("joy", "fear", "anger")
MakeJob = Callable[..., Job]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random BERT with three labels."""
    return str(write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", labels=LABELS, max_position_embeddings=512))


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: str, dask_address: str) -> MakeJob:
    """A job over tmp_path/corpus on the session's cluster; anything can be given otherwise."""

    def make(**values: Any) -> Job:
        return Job.build(
            {
                "corpus": [str(tmp_path / "corpus")],
                "id_columns": ["id"],
                "model": tiny_model,
                "device": "cpu",
                "work": str(tmp_path / "work"),
                "warehouse": f"duckdb:///{tmp_path}/scores.duckdb",
                "cluster": dask_address,
                **values,
            }
        )

    return make


def write_jsonl(path: Path, ids: Sequence[str], text: str = "the day of {} was bright") -> Path:
    """An object with one document for each id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps({"id": id, "text": text.format(id)}) + b"\n" for id in ids))
    return path


def run_all(job: Job) -> Report:
    """All five stages, as the command line calls them."""
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run, warehouse=job.warehouse)
    stages.load(planned.run, warehouse=job.warehouse)
    return stages.report(planned.run, warehouse=job.warehouse)


def query(job: Job, sql: str) -> list[tuple[Any, ...]]:
    """Rows from the job's DuckDB file."""
    with duckdb.connect(job.warehouse.removeprefix("duckdb:///"), read_only=True) as connection:
        return connection.execute(sql).fetchall()
