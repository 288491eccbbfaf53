"""A run through `corpuscore serve`: the rows of the batch path, whatever happens to the service meanwhile."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corpuscore import stages
from corpuscore.cli import main
from corpuscore.errors import ModelError
from tests.servers.inference import CARD, Script, answering
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl
from tests.service.processes import Serving, serving

_COLUMNS = "document_id, status, token_count, joy, fear, anger"


@pytest.fixture(scope="module")
def service(tiny_model: str) -> Iterator[Serving]:
    """The tiny model, served as users serve it."""
    with serving("--model", tiny_model, "--device", "cpu") as made:
        yield made


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of three objects, with texts that repeat."""
    for name in "abc":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number % 90}-{number}" for number in range(150)])
    write_jsonl(tmp_path / "corpus" / "d.jsonl", ["1", "2", "3"], "the same {0[0]}".replace("{0[0]}", "text"))
    return tmp_path


def test_the_rows_are_those_of_the_batch_path(service: Serving, corpus: Path, make_job: MakeJob) -> None:
    """Bit for bit in DuckDB, reconciled; with the fingerprint of the batch path."""
    here = make_job(warehouse=f"duckdb:///{corpus}/here.duckdb", work=str(corpus / "here"))
    url = f"grpc://127.0.0.1:{service.port}/{service.name}"
    there = make_job(warehouse=f"duckdb:///{corpus}/there.duckdb", work=str(corpus / "there"), model=url, device="auto")
    run_all(here)
    report = run_all(there)
    rows = f"SELECT {_COLUMNS} FROM scores ORDER BY ALL"
    assert len(query(there, rows)) == 453
    assert query(here, rows) == query(there, rows)
    assert stages.plan(there).fingerprint == stages.plan(here).fingerprint
    assert report.rows_in_table + report.rejects_in_table == report.rows == 453


def test_the_command_line_takes_the_address(service: Serving, corpus: Path, dask_address: str) -> None:
    """check, a dry run, and plan; an option that the service does otherwise is refused with status 2."""
    url = f"grpc://127.0.0.1:{service.port}/{service.name}"
    usual = ["--corpus", str(corpus / "corpus"), "--model", url, "--cluster", dask_address]
    more = ["--work", str(corpus / "work"), "--warehouse", f"duckdb:///{corpus}/t.duckdb"]
    checked = CliRunner().invoke(main, ["check", *usual])
    assert checked.exit_code == 0, checked.output
    assert "by the service" in checked.output
    dry = CliRunner().invoke(main, ["run", *usual, *more, "--dry-run", "--json"])
    assert dry.exit_code == 0, dry.output
    found = json.loads(dry.stdout)
    assert found["sampled_documents"] == 3 * 128 + 3
    assert found["documents"] == pytest.approx(453, rel=0.05)
    assert found["tokens"] > 453
    assert not (corpus / "work").exists()
    planned = CliRunner().invoke(main, ["plan", *usual, *more])
    assert planned.exit_code == 0, planned.output
    refused = CliRunner().invoke(main, ["plan", *usual, *more, "--device", "cuda"])
    assert refused.exit_code == 2
    assert "leave --device out" in refused.output
    raced = CliRunner().invoke(main, ["bench", "--model", url, "--texts", str(corpus / "corpus" / "a.jsonl")])
    assert raced.exit_code == 2
    assert "name a checkpoint" in raced.output


def test_a_service_that_is_killed_in_the_middle_costs_nothing(corpus: Path, make_job: MakeJob, tiny_model: str) -> None:
    """The run waits, the service is started again at its port, and all rows are there once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as stack:
        first = stack.enter_context(serving("--model", tiny_model, "--device", "cpu", "--port", str(port)))
        job = make_job(model=f"grpc://127.0.0.1:{port}/{first.name}", device="auto", partition_rows=20)
        planned = stages.plan(job)
        failed: list[BaseException] = []

        def score() -> None:
            try:
                stages.score(planned.run)
            except BaseException as error:
                failed.append(error)

        scoring = threading.Thread(target=score)
        scoring.start()
        receipts = Path(job.work) / "receipts"
        while not list(receipts.rglob("*.json")) and scoring.is_alive():
            time.sleep(0.01)
        first.process.kill()
        first.process.wait()
        with serving("--model", tiny_model, "--device", "cpu", "--port", str(port)):
            scoring.join(100)
            assert not failed
            stages.validate(planned.run, warehouse=job.warehouse)
            stages.load(planned.run, warehouse=job.warehouse)
            report = stages.report(planned.run, warehouse=job.warehouse)
    assert query(job, "SELECT count(*), count(DISTINCT document_id) FROM scores") == [(453, 453)]
    assert report.rows_in_table + report.rejects_in_table == report.rows == 453


def test_another_model_in_the_middle_stops_the_run(corpus: Path, make_job: MakeJob) -> None:
    """With one message; no receipt is of a part with both, and the planned model can finish the run."""
    script = Script()

    def before(_texts: list[str], _context: Any) -> None:
        time.sleep(0.02)
        if len(script.requests) >= 3:
            script.is_another_model()

    script.before = before
    with answering(script) as url:
        job = make_job(model=url, device="auto", partition_rows=20)
        planned = stages.plan(job)
        with pytest.raises(ModelError, match="another model|has the model"):
            stages.score(planned.run)
        done = len(list((Path(job.work) / "receipts").rglob("*.json")))
        assert done <= 3
        script.before, script.card, script.version = lambda _texts, _context: None, CARD, CARD.fingerprint
        stages.score(planned.run)
        assert len(list((Path(job.work) / "receipts").rglob("*.json"))) == planned.partitions
