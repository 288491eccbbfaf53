from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore import stages
from corpuscore.errors import JobError, MissingDocument, ValidationFailed
from corpuscore.job import Job
from corpuscore.records import digest, part_key, receipt_key
from corpuscore.runs import Run
from corpuscore.stages import loading
from corpuscore.stages.planning import chunks
from corpuscore.storage import Store
from corpuscore.warehouse import load_parts
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl

IDS = [f"d{number:03}" for number in range(60)]
DAYS_AGO = time.time() - 2 * 86_400


def test_a_corpus_becomes_a_table_once(make_job: MakeJob, tmp_path: Path) -> None:
    """One row a document, counted from end to end; the second run scores and loads nothing."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:40])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[40:])
    job = make_job()
    first = run_all(job)
    assert (first.rows, first.scored, first.rejected, first.rows_loaded, first.rows_in_table) == (60, 60, 0, 60, 60)
    assert query(job, "select count(*), count(distinct document_id), count(distinct work_id) from scores") == [
        (60, 60, 2)
    ]
    second = run_all(job)
    assert second.nothing_new
    assert (second.run, second.rows_in_table) == (first.run, 60)


def test_only_new_objects_are_scored(make_job: MakeJob, tmp_path: Path) -> None:
    """A corpus that grew costs what it grew by."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:40])
    job = make_job()
    run_all(job)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[40:])
    grown = run_all(job)
    assert (grown.partitions, grown.scored_partitions, grown.rows_loaded, grown.rows_in_table) == (2, 1, 20, 60)


def test_a_changed_object_replaces_its_rows(make_job: MakeJob, tmp_path: Path) -> None:
    """The table holds one row a document, also when the object is cut into other partitions than last time."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS, text="{} " + "word " * 3000)
    job = make_job(partition_rows=20)
    assert run_all(job).partitions > 1
    write_jsonl(path, IDS[10:], text="{} changed")
    os.utime(path, ns=(1, 1))
    changed = run_all(make_job(partition_rows=1000))
    assert (changed.partitions, changed.rows_in_table, changed.superseded) == (1, 50, 60)
    assert query(job, "select count(*), count(distinct document_id) from scores") == [(50, 50)]


def test_another_cut_scores_nothing_again(make_job: MakeJob, tmp_path: Path) -> None:
    """An object keeps the partitions in which it was scored, and the plan says so; a new one is cut as asked for."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS, text="{} " + "word " * 3000)
    first = run_all(make_job(partition_rows=20))
    again = make_job(partition_rows=30)
    planned = stages.plan(again)
    assert (planned.partitions, planned.pending, planned.kept_cuts) == (first.partitions, 0, 1)
    assert run_all(again).nothing_new
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS, text="{} " + "word " * 3000)
    grown = run_all(again)
    assert (grown.partitions, grown.scored_partitions) == (first.partitions + 2, 2)
    assert query(again, "select count(*) from scores") == [(2 * len(IDS),)]


def _scored_and_checked(job: Job) -> str:
    """Everything but the load; the address of the run."""
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run)
    return planned.run


def test_a_run_that_was_planned_earlier_does_not_replace_a_later_one(make_job: MakeJob, tmp_path: Path) -> None:
    """A is planned, B is planned and loaded, then A is loaded: B's rows stay, and A says how much was left out."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", IDS[20:30])
    job = make_job()
    earlier = _scored_and_checked(job)
    write_jsonl(path, IDS[5:20], text="{} changed")
    later = run_all(job)
    loaded = stages.load(earlier)
    assert (loaded.rows_loaded, loaded.objects_outdated, loaded.rows_outdated, loaded.work_ids_skipped) == (0, 1, 20, 1)
    assert [(finding["check"], finding["level"]) for finding in loaded.findings] == [("outdated", "warning")]
    assert later.run != earlier
    assert query(job, "select count(*), min(document_id) from scores") == [(25, "d005")]
    report = stages.report(earlier)
    assert (report.rows, report.rows_in_table, report.outdated) == (30, 10, 20)
    assert "20 documents of 1 objects were not loaded" in report.text(1000)
    assert run_all(job).nothing_new


def test_a_later_run_may_load_before_this_one_has_counted(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a later plan replaces between a run's transaction and its count are outdated, not missing."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:20])
    job = make_job()
    earlier = _scored_and_checked(job)
    write_jsonl(path, IDS[5:20], text="{} changed")
    later = _scored_and_checked(job)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        done = load_parts(*arguments, **options)
        monkeypatch.setattr(loading, "load_parts", load_parts)
        assert stages.load(later).rows_superseded == 20
        return done

    monkeypatch.setattr(loading, "load_parts", interrupted)
    loaded = stages.load(earlier)
    assert (loaded.rows_loaded, loaded.objects_outdated, loaded.rows_outdated) == (20, 1, 20)
    assert query(job, "select count(*) from scores") == [(15,)]


def test_rejects_are_kept_with_their_reason(make_job: MakeJob, tmp_path: Path) -> None:
    """Documents that cannot be scored land in the dead-letter table; nothing is lost between the two."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    path.write_bytes(path.read_bytes() + b'{"id": "e", "text": " "}\n{"id": "n", "text": null}\n{broken\n')
    job = make_job(max_reject_fraction=0.1)
    report = run_all(job)
    assert (report.rows, report.scored, report.rejected) == (63, 60, 3)
    assert query(job, "select document_id, reason from scores_rejects order by position")[:2] == [
        ("e", "whitespace"),
        ("n", "null"),
    ]
    assert sum(report.reasons.values()) == 3


def test_too_many_rejects_stop_the_load(make_job: MakeJob, tmp_path: Path) -> None:
    """A share of rejects over the limit is an error that names the reason, and no row is loaded."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS[:9])
    path.write_bytes(path.read_bytes() + b'{"id": "e", "text": ""}\n')
    job = make_job()
    planned = stages.plan(job)
    stages.score(planned.run)
    with pytest.raises(ValidationFailed, match="empty"):
        stages.validate(planned.run)
    with pytest.raises(MissingDocument, match="has not been validated"):
        stages.load(planned.run)
    assert stages.status(planned.run).stage == "failed validation"


def test_a_lost_part_is_scored_again(make_job: MakeJob, tmp_path: Path) -> None:
    """A part that vanished or was damaged fails validation once; its receipt is withdrawn and the next run heals it."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    job = make_job()
    planned = stages.plan(job)
    stages.score(planned.run)
    (part,) = (tmp_path / "work" / "parts").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ValidationFailed, match="sha256"):
        stages.validate(planned.run)
    assert stages.pending(planned.run) == 1
    assert run_all(job).rows_in_table == 60


def test_parts_that_no_receipt_names_are_swept_after_the_run(make_job: MakeJob, tmp_path: Path) -> None:
    """What a crash left behind goes with the first report when it is a day old; what counts stays, however old."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    job = make_job()
    planned = stages.plan(job)
    stages.score(planned.run)
    (part,) = (tmp_path / "work" / "parts").rglob("*.parquet")
    orphan = part.with_name(part.name.replace("-", "-0"))
    orphan.write_bytes(b"half a part")
    run_all(job)
    assert orphan.exists()
    for path in (part, orphan):
        os.utime(path, (DAYS_AGO, DAYS_AGO))
    run_all(job)
    assert part.exists()
    assert not orphan.exists()


@pytest.mark.parametrize(("moment", "age_seconds"), [("find_older", 2 * 86_400), ("delete", 0), ("report", 0)])
def test_a_straggler_keeps_the_part_that_its_receipt_names(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, age_seconds: int
) -> None:
    """Where a store cannot create exclusively a late receipt takes the other's place: while the parts are listed, just
    before they are deleted, or after the sweep."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    job = make_job()
    run = Run.open(run_all(job).run)
    (receipt,) = run.receipts().found.values()
    late = replace(receipt, part=part_key(receipt.work_id, "late"))
    run.store.write(late.part, run.store.read(receipt.part))
    written = time.time() - age_seconds
    os.utime(tmp_path / "work" / late.part, (written, written))

    def commit() -> None:
        run.store.write(receipt_key(late.work_id), orjson.dumps(late.to_json()))

    if moment == "report":
        stages.report(run.uri)
        commit()
    else:
        real = getattr(Store, moment)

        def interrupted(store: Store, *arguments: Any) -> Any:
            if moment == "delete":
                commit()
                return real(store, *arguments)
            found = real(store, *arguments)
            commit()
            return found

        monkeypatch.setattr(Store, moment, interrupted)
        stages.report(run.uri)
        monkeypatch.undo()
    assert run.receipts().found == {late.work_id: late}
    assert run.store.exists(late.part)
    assert run.pending() == []


def test_another_model_or_option_is_other_work(make_job: MakeJob, tmp_path: Path) -> None:
    """A window of another size scores again and replaces the rows of the same model."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS, text="{} " + "bright day " * 20)
    run_all(make_job())
    shorter = run_all(make_job(max_tokens=8))
    assert (shorter.scored_partitions, shorter.truncated, shorter.rows_in_table) == (1, 60, 60)
    assert query(make_job(), "select count(*), count(distinct work_id) from scores") == [(60, 1)]


def test_a_run_is_found_by_its_address_alone(make_job: MakeJob, tmp_path: Path) -> None:
    """The run's folder says all that the later stages need; another folder is a clear error."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    planned = stages.plan(make_job())
    assert Run.open(planned.run).job == make_job().without_secrets()
    assert stages.pending(planned.run) == planned.pending == 1
    with pytest.raises(MissingDocument, match="There is no run"):
        Run.open(f"{tmp_path}/work/runs/000000000000")


@pytest.mark.parametrize(
    "url", ["postgresql://me:Zq42@host/db", "postgresql://me@host/db?sslpassword=Zq42&pass%77ord=Zq42"]
)
def test_no_secret_of_an_address_is_written_down(make_job: MakeJob, tmp_path: Path, url: str) -> None:
    """The files of a run say where its table is, and its id is that of the same table without a password."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    planned = stages.plan(make_job(warehouse=url))
    written = [path.read_text() for path in (tmp_path / "work").rglob("*.json")]
    assert written
    assert "Zq42" not in "".join(written)
    assert planned.run_id == stages.plan(make_job(warehouse="postgresql://me@host/db")).run_id


def test_an_address_without_a_secret_keeps_its_run(make_job: MakeJob, tmp_path: Path) -> None:
    """The id is made from the address as it is spelled, so that runs of earlier versions are found again."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    url = "postgresql://me@host:5432/db?sslmode=require&passfile=/keys/pass&sslkey=/keys/me.key"
    planned = stages.plan(make_job(warehouse=url))
    assert planned.run_id == digest([planned.manifest, url, "scores"])[:12]


def test_a_column_name_that_is_needed_twice_is_refused(make_job: MakeJob, tmp_path: Path) -> None:
    """A kept column cannot be called like a label or like one of the scores' own columns."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", IDS)
    for name in ("joy", "JOY", "status", "work_id"):
        with pytest.raises(JobError, match=f"kept column '{name}'"):
            stages.plan(make_job(keep_columns=[name]))


def test_kept_columns_of_other_types_are_one_column(make_job: MakeJob, tmp_path: Path) -> None:
    """Integers, floating point and nothing at all, in objects of one corpus, are loaded as they are."""
    (tmp_path / "corpus" / "lang=en").mkdir(parents=True)
    columns = {"a": pa.array([2**53, None]), "b": pa.array([0.5, 3]), "c": pa.nulls(2), "lang=en/d": None}
    for name, x in columns.items():
        rows = {"id": [f"{name}0", f"{name}1"], "text": ["a day", "a night"]} | ({} if x is None else {"x": x})
        pq.write_table(pa.table(rows), tmp_path / "corpus" / f"{name}.parquet")
    job = make_job(keep_columns=["x=value", "lang"], id_columns=["id=own"], text_template=r"{id}: {text}")
    done = run_all(job)
    assert (done.scored, done.rows_in_table) == (8, 8)
    assert [message for message in done.findings if "lack a kept column" in message["message"]]
    found = query(job, "select document_id, own, value, lang from scores order by 1")
    values = {"a0": 2.0**53, "b0": 0.5, "b1": 3.0}
    assert found == [
        (key, key, values.get(key), "en" if name == "lang=en/d" else None)
        for name in columns
        for key in (f"{name}0", f"{name}1")
    ]


@pytest.mark.parametrize("pending", [[], [3], [0, 5, 9], list(range(7, 9000, 2))])
def test_chunks_cover_what_is_pending(pending: list[int]) -> None:
    """Every pending partition is in exactly one chunk, and there are a few hundred chunks at the most."""
    found = chunks(pending)
    covered = [index for start, stop in found for index in pending if start <= index < stop]
    assert covered == pending
    assert len(found) <= 200
