"""Objects that have left the corpus, in each warehouse: kept, removed or an error, as the job says."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from corpuscore import stages
from corpuscore.errors import CorpusError, ValidationFailed
from corpuscore.job import Job
from corpuscore.stages.planning import describe
from corpuscore.warehouse import open_warehouse
from tests.servers.jobs import MakeJob, run_all, write_jsonl
from tests.servers.warehouses import Target

IDS = [f"d{number:03}" for number in range(60)]


@pytest.fixture
def job_into(make_job: MakeJob, sql_target: Target) -> Callable[..., Job]:
    """A job into the target's table; anything can be given otherwise."""
    return functools.partial(make_job, warehouse=sql_target.url, table=sql_target.table)


def _objects(job: Job) -> dict[str, int]:
    """Documents in the table by the name of their object, as counted there and as the ledger has them."""
    scorer = describe(job)
    with open_warehouse(job.warehouse, job.table) as warehouse:
        known = {uri: item for uri, item in warehouse.objects(scorer.fingerprint).items() if not item.gone}
        counts = {uri: warehouse.count(list(item.digests)) for uri, item in known.items()}
        assert {uri: item.documents for uri, item in known.items()} == {
            uri: count.scored + count.rejected for uri, count in counts.items()
        }
        assert warehouse.summary(scorer.labels).scored == sum(c.scored for c in counts.values())
    return {uri.rpartition("/")[2]: count.scored for uri, count in counts.items()}


def test_a_renamed_object_is_there_twice_and_said_to_be(job_into: Callable[..., Job], tmp_path: Path) -> None:
    """By default nothing that was loaded goes; the load and the report warn, with the numbers, as long as it lasts."""
    old = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:])
    job = job_into()
    assert run_all(job).findings == []
    old.rename(old.with_name("renamed.jsonl"))
    report = run_all(job)
    assert (report.rows_loaded, report.removed) == (20, 0)
    assert _objects(job) == {"a.jsonl": 20, "b.jsonl": 40, "renamed.jsonl": 20}
    assert "warning: The table holds 20 documents of 1 objects (such as file://" in report.text(1000)
    (finding,) = run_all(job).findings
    assert (finding["check"], finding["level"]) == ("departed", "warning")
    assert finding["values"] == {"objects": 1, "rows": 20, "examples": [old.as_uri()]}


def test_objects_that_were_merged_are_removed(job_into: Callable[..., Job], tmp_path: Path) -> None:
    """Rows of the objects that are gone go after the load; other corpora in the table are not touched."""
    elsewhere = job_into(corpus=[str(tmp_path / "corpus-2")])
    write_jsonl(tmp_path / "corpus-2" / "other.jsonl", IDS[:7])
    run_all(elsewhere)
    (tmp_path / "corpus-2" / "other.jsonl").rename(tmp_path / "corpus-2" / "moved.jsonl")
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*IDS[:20], "r"])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:40])
    job = job_into(departed="remove")
    assert run_all(job).removed == 0
    for name in ("a", "b"):
        (tmp_path / "corpus" / f"{name}.jsonl").unlink()
    write_jsonl(tmp_path / "corpus" / "merged.jsonl", [*IDS[:40], "r"])
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run)
    loaded = stages.load(planned.run)
    assert (loaded.rows_loaded, loaded.objects_departed, loaded.rows_departed, loaded.rows_removed) == (41, 2, 41, 41)
    assert [finding["check"] for finding in loaded.findings] == ["departed"]
    assert _objects(job) == {"other.jsonl": 7, "merged.jsonl": 41}
    assert stages.report(planned.run).removed == 41
    assert run_all(job).nothing_new


def test_departed_objects_stop_the_load(job_into: Callable[..., Job], tmp_path: Path) -> None:
    """Where the job says so, nothing is loaded; planning again with another word goes on from there."""
    old = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    run_all(job_into(departed="fail"))
    old.rename(old.with_name("renamed.jsonl"))
    job = job_into(departed="fail")
    with pytest.raises(
        ValidationFailed, match=r"20 documents of 1 objects \(such as .*a\.jsonl\) .* --departed remove"
    ):
        run_all(job)
    assert _objects(job) == {"a.jsonl": 20}
    job = job_into(departed="remove")
    assert stages.plan(job).pending == 0
    assert run_all(job).removed == 20
    assert _objects(job) == {"renamed.jsonl": 20}


def test_what_a_later_plan_has_loaded_has_not_departed(make_job: MakeJob, tmp_path: Path) -> None:
    """A run that was planned before an object came does not take it for gone."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    job = make_job(departed="remove")
    earlier = stages.plan(job).run
    stages.score(earlier)
    stages.validate(earlier)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:])
    run_all(job)
    loaded = stages.load(earlier)
    assert (loaded.objects_departed, loaded.findings) == (0, [])
    assert _objects(job) == {"a.jsonl": 20, "b.jsonl": 40}


def test_a_relative_corpus_is_that_of_the_plan(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load in another folder does not take the corpus of the same name that is there for its own."""
    for place in ("here", "there"):
        write_jsonl(tmp_path / place / "corpus" / f"{place}.jsonl", IDS[:20])
        monkeypatch.chdir(tmp_path / place)
        job = make_job(corpus=["corpus"], departed="remove")
        run = stages.plan(job).run
        stages.score(run)
        stages.validate(run)
        monkeypatch.chdir(tmp_path / "here")
        stages.load(run)
    assert _objects(job) == {"here.jsonl": 20, "there.jsonl": 20}


def test_prune_removes_what_has_left(make_job: MakeJob, tmp_path: Path) -> None:
    """By command, without a run: counted first, then removed, with a note in the ledger; other corpora stay."""
    other = make_job(corpus=[str(tmp_path / "corpus-2")])
    write_jsonl(tmp_path / "corpus-2" / "other.jsonl", IDS[:7])
    run_all(other)
    gone = write_jsonl(tmp_path / "corpus" / "a.jsonl", [*IDS[:20], "r"])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:40])
    job = make_job()
    run_all(job)
    planned = stages.plan(job)
    gone.unlink()
    (tmp_path / "corpus-2" / "other.jsonl").rename(tmp_path / "corpus-2" / "moved.jsonl")
    ask = functools.partial(stages.prune, job.corpus, job.work, job.warehouse, job.table)
    counted = ask(dry_run=True)
    assert (counted.objects, counted.rows, counted.removed, counted.examples) == (1, 21, 0, [gone.as_uri()])
    assert _objects(job) == {"a.jsonl": 21, "b.jsonl": 20, "other.jsonl": 7}
    assert (ask().removed, ask().rows) == (21, 0)
    assert _objects(job) == {"b.jsonl": 20, "other.jsonl": 7}
    assert stages.load(planned.run).rows_outdated == 21
    with open_warehouse(job.warehouse, job.table) as warehouse:
        (pruned,) = [row for row in warehouse.runs() if "pruned" in row.details]
        assert pruned.details["pruned"]["rows"] == 21
        assert warehouse.objects(pruned.model)[gone.as_uri()].gone


def test_prune_refuses_where_nothing_of_the_corpus_is_there(make_job: MakeJob, tmp_path: Path) -> None:
    """A disk that is not mounted does not empty the table."""
    gone = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:5])
    job = make_job()
    run_all(job)
    gone.unlink()
    with pytest.raises(CorpusError, match="no objects there"):
        stages.prune(job.corpus, job.work, job.warehouse, job.table)
    assert _objects(job) == {"a.jsonl": 5}


def test_what_since_leaves_out_has_not_departed(job_into: Callable[..., Job], tmp_path: Path) -> None:
    """Older objects keep their rows; what is gone loses them all the same."""
    old = write_jsonl(tmp_path / "corpus" / "old.jsonl", IDS[:20])
    gone = write_jsonl(tmp_path / "corpus" / "gone.jsonl", IDS[20:40])
    for path in (old, gone):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert _loaded(job_into()) == {"old.jsonl": 20, "gone.jsonl": 20}
    gone.unlink()
    write_jsonl(tmp_path / "corpus" / "new.jsonl", IDS[40:])
    assert _loaded(job_into(departed="remove", since="2026-01-01")) == {"old.jsonl": 20, "new.jsonl": 20}


def test_files_that_a_table_left_behind_have_departed(job_into: Callable[..., Job], tmp_path: Path) -> None:
    """A Delta table that was compacted holds each row once, in the warehouse too."""
    table = str(tmp_path / "corpus")
    for texts in (["the day"], ["was bright"]):
        write_deltalake(table, pa.table({"id": texts, "text": texts}), mode="append")
    job = job_into(departed="remove")
    assert sorted(_loaded(job).values()) == [1, 1]
    DeltaTable(table).optimize.compact()
    assert list(_loaded(job).values()) == [2]


def _loaded(job: Job) -> dict[str, int]:
    run_all(job)
    return _objects(job)
