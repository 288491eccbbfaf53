from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from corpuscore import stages
from corpuscore.cli import main
from corpuscore.job import Job
from corpuscore.summaries import RunLine
from tests.servers.jobs import MakeJob, run_all


def call(*arguments: str, status: int = 0) -> Result:
    """Run a command and check its exit status."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, list[object]], None]:
    """Writes an object of the corpus, a line a value."""

    def write(name: str, values: list[object]) -> None:
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / "corpus" / name).write_bytes(b"".join(orjson.dumps(value) + b"\n" for value in values))

    return write


@pytest.fixture
def job(make_job: MakeJob, put: Callable[[str, list[object]], None]) -> Job:
    """Two objects, with three rejects of two reasons among seven documents."""
    put("a.jsonl", [{"id": "1", "text": "a fine day"}, {"id": "2", "text": None}, {"id": "3", "text": " "}])
    put("b.jsonl", [*({"id": f"b{n}", "text": f"the day of {n}"} for n in range(3)), {"id": "b3", "text": None}])
    return make_job(max_reject_fraction=1.0)


def test_runs_of_a_work_location(job: Job, make_job: MakeJob, put: Callable[[str, list[object]], None]) -> None:
    """The latest first, with stage and counts; one that was planned again is not loaded any more."""
    first = run_all(job)
    put("c.jsonl", [{"id": "c", "text": "one more"}])
    stages.plan(make_job(max_reject_fraction=1.0, table="other"))
    listed = json.loads(call("runs", "--work", job.work, "--json").stdout)
    assert [(line["table"], line["stage"], line["documents"], line["rejected"]) for line in listed] == [
        ("other", "not loaded", None, None),
        ("scores", "loaded", 7, 3),
    ]
    shown = call("runs", "--work", job.work, "--limit", "1")
    assert first.run_id not in shown.stdout
    assert "1 earlier run not listed" in shown.stderr
    assert listed[0]["run_id"] in shown.stdout


def test_a_run_by_the_beginning_of_its_id(job: Job, tmp_path: Path) -> None:
    """Looked up in the work location, which may be in the environment; without a name it is the latest."""
    made = run_all(job)
    short = ("status", made.run_id[:5], "--json")
    assert json.loads(call(*short, "--work", job.work).stdout)["run"] == made.run
    found = CliRunner().invoke(main, ["status", "--json"], env={"CORPUSCORE_WORK": job.work})
    assert json.loads(found.stdout)["stage"] == "loaded"
    assert "strongest paragraph" in call("report", made.run_id, "--work", job.work).stdout
    assert json.loads(call("load", "--run", made.run_id, "--work", job.work, "--json").stdout)["rows_loaded"] == 0

    assert "Next: add --work" in call(*short, status=2).stderr
    assert "There is no run 'zz'" in call("status", "zz", "--work", job.work, status=2).stderr
    assert "There are no runs at" in call("status", "--work", str(tmp_path / "none"), status=2).stderr


def test_an_id_that_begins_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are named; none is guessed."""
    lines = [RunLine(f"/w/runs/{name}", name, "", "", 0, 0, "", "", "", []) for name in ("ab1", "ab2")]
    monkeypatch.setattr("corpuscore.stages.looking.runs", lambda _: lines)
    assert "begins 2 runs: ab1, ab2" in call("status", "ab", "--work", "/w", status=2).stderr
    assert stages.find_run("ab2", "/w") == "/w/runs/ab2"


def test_rejects_of_a_run(job: Job) -> None:
    """Each with its object, position and reason, before a load as well; some, one reason, all, as CSV and JSON."""
    planned = stages.plan(job)
    assert "2 partitions not scored yet" in call("rejects", planned.run).stderr
    stages.score(planned.run)
    body = json.loads(call("rejects", planned.run, "--json").stdout)
    assert (body["rejected"], body["reasons"], body["missing"]) == (3, {"null": 2, "whitespace": 1}, 0)
    places = [(Path(found["object_uri"]).name, found["document_id"], found["reason"]) for found in body["rejects"]]
    assert places == [("a.jsonl", "2", "null"), ("a.jsonl", "3", "whitespace"), ("b.jsonl", "b3", "null")]
    line = Path(job.corpus[0], "a.jsonl").read_bytes()[body["rejects"][0]["position"] :].splitlines()[0]
    assert json.loads(line)["id"] == "2"

    some = call("rejects", planned.run, "--limit", "1")
    assert len(some.stdout.splitlines()) == 1
    assert "2 more with --all" in some.stderr
    assert len(call("rejects", planned.run, "--all").stdout.splitlines()) == 3
    found = list(csv.DictReader(call("rejects", planned.run, "--csv", "--reason", "whitespace").stdout.splitlines()))
    assert [row["document_id"] for row in found] == ["3"]

    assert "Its reasons are null, whitespace" in call("rejects", planned.run, "--reason", "x", status=2).stderr
    assert "--csv together with --json" in call("rejects", planned.run, "--csv", "--json", status=2).stderr


def test_a_run_that_is_refused_names_objects_and_positions(job: Job, make_job: MakeJob) -> None:
    """Who reads the message knows where to look."""
    planned = stages.plan(make_job(max_reject_fraction=0.0))
    stages.score(planned.run)
    refused = call("validate", "--run", planned.run, status=1).stderr
    assert f"null at file://{job.corpus[0]}/a.jsonl#" in refused
    assert "corpuscore rejects RUN" in refused
