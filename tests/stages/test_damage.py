"""Anything in the work location may be damaged or gone: the next run makes it again, and the table is right."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from click.testing import CliRunner

from corpuscore import stages
from corpuscore.cli import main
from corpuscore.errors import CorpuscoreError, DamagedDocument, MissingDocument, StorageError, ValidationFailed
from corpuscore.job import Job
from corpuscore.runs import Run
from corpuscore.storage import Store, read_document
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl

OBJECTS, DOCUMENTS = 3, 20
FOREIGN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"7",
    b'{"a": 1}',
    b"[[]]",
    b"PAR1PAR1",
    b'{"rows": "many", "part": null}',
    b"\0" * 64,
]
ROWS = "select document_id, joy, fear, anger from scores order by all"


@pytest.fixture
def corpus(tmp_path: Path) -> None:
    """Three objects."""
    for number in range(OBJECTS):
        ids = [f"{chr(97 + number)}{chr(97 + at)}" for at in range(DOCUMENTS)]
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", ids)


def files_of(job: Job) -> list[Path]:
    """What lies in the work location."""
    return sorted(path for path in Path(job.work).rglob("*") if path.is_file())


def damage(path: Path, others: list[Path], chance: random.Random) -> str:
    """Do something bad to a file; what."""
    body = bytearray(path.read_bytes())
    kind = chance.choice(["flip", "flip", "cut", "foreign", "swap", "gone"])
    if kind == "flip" and body:
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        path.write_bytes(body)
    elif kind == "cut":
        path.write_bytes(body[: chance.randrange(len(body) + 1)])
    elif kind == "foreign":
        path.write_bytes(chance.choice(FOREIGN))
    elif kind == "swap":
        path.write_bytes(chance.choice(others).read_bytes())
    else:
        path.unlink()
    return f"{kind} {path.name}"


def command(name: str, job: Job) -> None:
    """Run a command of the command line on a job; it ends well."""
    arguments = [
        *("--corpus", job.corpus[0], "--id-column", "id", "--model", job.model, "--device", "cpu", "--work", job.work),
        *("--warehouse", job.warehouse, "--cluster", job.cluster),
    ]
    result = CliRunner().invoke(main, [name, *arguments])
    assert result.exit_code == 0, result.output


def unsealed(job: Job) -> None:
    """Turn the sound documents into those of older versions, which had no seals."""
    for path in Path(job.work).rglob("*.json"):
        body = path.read_bytes()
        if b'"seal"' in body and not damaged(job, path):
            content = orjson.loads(body)
            del content["seal"]
            path.write_bytes(orjson.dumps(content["parts"] if path.name == "checked.json" else content))


def damaged(job: Job, path: Path) -> bool:
    """Whether a document is not what was written."""
    try:
        read_document(Store(job.work), str(path.relative_to(job.work)), dict)
    except DamagedDocument:
        return True
    return False


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("seed", range(12))
def test_a_run_heals_whatever_was_damaged(seed: int, make_job: MakeJob) -> None:
    """Three files damaged after a stage, at random: the stages after it end well or in an error of ours, and the next
    run puts the very rows into the table that an undisturbed one does."""
    chance = random.Random(seed)
    job = make_job()
    run = run_all(job).run
    expected = query(job, ROWS)
    assert len(expected) == OBJECTS * DOCUMENTS
    for _ in range(2):
        fresh = chance.random() < 0.5
        if fresh:
            with duckdb.connect(job.warehouse.removeprefix("duckdb:///")) as connection:
                connection.execute("delete from scores")
                connection.execute("delete from scores_ledger")
        if chance.random() < 0.3:
            unsealed(job)
        done = [damage(path, files_of(job), chance) for path in chance.sample(files_of(job), 3)]
        told = f"seed {seed}, fresh {fresh}: {done}"
        for stage in (stages.status, stages.score, stages.validate, stages.load, stages.report):
            ends_well_or_in_our_words(stage, run, told)
        command("run", job)
        assert query(job, ROWS) == expected, told


def ends_well_or_in_our_words(stage: Callable[[str], Any], run: str, told: str) -> None:
    """Anything but an error of our tree fails the test."""
    try:
        stage(run)
    except CorpuscoreError:
        return
    except Exception as error:
        raise AssertionError(told) from error


@pytest.mark.usefixtures("corpus")
def test_documents_of_older_versions_are_read(make_job: MakeJob) -> None:
    """Without seals, a run is as it was: nothing is scored, nothing loaded, and checked.json is loaded from."""
    job = make_job()
    before = run_all(job)
    unsealed(job)
    assert stages.status(before.run).stage == "loaded"
    assert stages.load(before.run).work_ids_skipped == OBJECTS
    after = run_all(job)
    assert (after.scored_partitions, after.rows_loaded, after.rows_in_table) == (0, 0, OBJECTS * DOCUMENTS)


@pytest.mark.usefixtures("corpus")
def test_a_damaged_receipt_is_named_withdrawn_and_made_again(make_job: MakeJob) -> None:
    """Validation names it and says what to do; the run command does it by itself."""
    job = make_job()
    planned = stages.plan(job)
    stages.score(planned.run)
    first, second, _ = Run.open(planned.run).manifest.work_ids
    receipts = Path(job.work) / "receipts"
    (receipts / first[:2] / f"{first}.json").write_bytes(b"{")
    with pytest.raises(ValidationFailed, match=rf"{first}.json is damaged.*Next: run the same again.*1 partitions"):
        stages.validate(planned.run)
    assert stages.pending(planned.run) == 1
    stages.score(planned.run)
    body = (receipts / first[:2] / f"{first}.json").read_bytes()
    (receipts / second[:2] / f"{second}.json").write_bytes(body)  # another's
    command("run", job)
    assert query(job, "select count(*), count(distinct document_id) from scores") == [(60, 60)]


@pytest.mark.usefixtures("corpus")
def test_what_was_checked_before_is_not_loaded_after_a_failure(make_job: MakeJob) -> None:
    """A failed validation takes the list of an earlier one back."""
    job = make_job()
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run)
    for path in (Path(job.work) / "parts").rglob("*.parquet"):
        path.write_bytes(b"damaged")
    with pytest.raises(ValidationFailed):
        stages.validate(planned.run)
    with pytest.raises(
        MissingDocument, match="has not been validated, or not without errors.*Next: corpuscore validate"
    ):
        stages.load(planned.run)


@pytest.mark.usefixtures("corpus")
def test_a_damaged_run_is_planned_again_and_no_earlier(make_job: MakeJob) -> None:
    """run.json and the manifest are named when they are needed, and made by the next plan; its time never goes back."""
    job = make_job()
    planned = stages.plan(job)
    folder = Path(job.work) / "runs" / planned.run_id
    before = Run.open(planned.run).planned_at
    (folder / "run.json").write_bytes(b'{"run_id": 7')
    with pytest.raises(DamagedDocument, match=r"run.json is damaged.*Next: plan again with the same arguments"):
        stages.status(planned.run)
    assert stages.plan(job).run == planned.run
    assert Run.open(planned.run).planned_at > before
    manifest = Path(job.work) / "manifests" / f"{planned.manifest}.parquet"
    for spoil in (lambda: manifest.write_bytes(b"PAR1"), manifest.unlink):
        spoil()
        with pytest.raises(StorageError, match=rf"{planned.manifest}.*Next: plan again"):
            stages.score(planned.run)
        assert stages.plan(job).pending == OBJECTS
        assert len(Run.open(planned.run).manifest) == OBJECTS


@pytest.mark.usefixtures("corpus")
def test_damaged_findings_and_lists_are_named(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    """load.json, findings.json and score/*.json count as not there; checked.json has to be made again."""
    job = make_job()
    done = run_all(job)
    folder = Path(job.work) / "runs" / done.run_id
    for path in [folder / "findings.json", *(folder / "score").iterdir()]:
        path.write_bytes(b"[]")
    with caplog.at_level(logging.WARNING, "corpuscore"):
        again = stages.report(done.run)
    assert (again.tokens, again.rows_in_table) == (0, 60)
    told = caplog.text
    assert "findings.json is damaged" in told
    assert "score/" in told
    (folder / "load.json").write_bytes(b'{"rows_loaded": "x"}')
    assert stages.status(done.run).stage != "loaded"
    with pytest.raises(MissingDocument, match="has not been loaded.*Next: corpuscore load"):
        stages.report(done.run)
    (folder / "checked.json").write_bytes(b"[]")
    with pytest.raises(MissingDocument, match=r"checked.json is damaged.*Next: corpuscore validate"):
        stages.load(done.run)
    stages.validate(done.run)
    stages.load(done.run)
    assert stages.report(done.run).rows_in_table == 60
