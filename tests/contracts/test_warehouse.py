"""What every warehouse holds to. The tests run for each file in pipeline/corpuscore/warehouse/backends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.errors import StorageError, ValidationFailed, WarehouseError
from corpuscore.options import TableOptions
from corpuscore.records import CheckedPart, ScoreType
from corpuscore.warehouse import Counts, LoadedObject, LoadSummary, RunRow, Warehouse, load_parts, remove_objects
from corpuscore.warehouse.retries import RetryingWarehouse
from corpuscore.warehouse.sql import SqlWarehouse
from tests.contracts import loading_process
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.warehouses import Target, read_scores

LATER = PLANNED_AT + timedelta(minutes=1)


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts into a folder of the test."""
    folder = tmp_path / "parts"
    folder.mkdir()
    return PartMaker(folder)


@pytest.fixture
def warehouse(target: Target) -> Iterator[Warehouse]:
    """An open, prepared warehouse."""
    with target.open() as opened_warehouse:
        opened_warehouse.prepare(LABELS, KEPT)
        yield opened_warehouse


def load(warehouse: Warehouse, parts: Sequence[CheckedPart], open_part: Any = opened, **more: Any) -> LoadSummary:
    """Load parts with the usual columns."""
    return load_parts(warehouse, "run", "model", LABELS, KEPT, parts, open_part, **{"planned_at": PLANNED_AT, **more})


def has_locks(warehouse: Warehouse) -> bool:
    """Whether a writer waits for another one's transaction; else it finds at its commit that the other was quicker."""
    assert isinstance(warehouse, RetryingWarehouse)
    return isinstance(warehouse.inner, SqlWarehouse)


def contents(warehouse: Warehouse, label: str = "joy") -> dict[str, float]:
    """Score by document id, of all documents."""
    found = warehouse.summary(LABELS, strongest=[label], top=1_000_000).strongest[label]
    ids = [document.document_id for document in found]
    assert len(ids) == len(set(ids))
    return {document.document_id: document.probability for document in found}


def test_loading_twice_is_loading_once(warehouse: Warehouse, maker: PartMaker) -> None:
    """The second load writes no row and says so."""
    parts = [maker.checked("w1", "a", 5, 2), maker.checked("w2", "a", 4, first=7), maker.checked("w3", "b", 3)]
    assert load(warehouse, parts) == LoadSummary(rows_loaded=12, rejects_loaded=2, work_ids_loaded=3)
    before = contents(warehouse)
    assert load(warehouse, parts) == LoadSummary(work_ids_skipped=3)
    assert contents(warehouse) == before
    assert warehouse.count(["w1", "w2", "w3"]) == Counts(12, 2)
    assert warehouse.ledger("model") == {part.work_id: part.digest for part in parts}


def test_a_new_digest_replaces(warehouse: Warehouse, maker: PartMaker) -> None:
    """The same work with other bytes takes the place of the old; its neighbours stay untouched."""
    first = [maker.checked("w1", "a", 5, 1), maker.checked("w2", "a", 5, first=6)]
    load(warehouse, first)
    second = [maker.checked("w1", "a", 5, 1, seed=9), first[1]]
    assert load(warehouse, second) == LoadSummary(5, 1, work_ids_loaded=1, work_ids_skipped=1, rows_superseded=6)
    assert warehouse.ledger("model")["w1"] == second[0].digest
    assert warehouse.count(["w1", "w2"]) == Counts(10, 1)


def test_other_partitions_of_an_object_supersede(warehouse: Warehouse, maker: PartMaker) -> None:
    """An object that is cut otherwise, or changed, still has one row a document."""
    load(warehouse, [maker.checked("w1", "a", 6), maker.checked("w2", "a", 6, first=6), maker.checked("w3", "b", 2)])
    summary = load(warehouse, [maker.checked("w4", "a", 12)])
    assert summary == LoadSummary(12, work_ids_loaded=1, rows_superseded=12)
    assert sorted(warehouse.ledger("model")) == ["w3", "w4"]
    assert len(contents(warehouse)) == 14


def test_models_do_not_supersede_each_other(warehouse: Warehouse, maker: PartMaker) -> None:
    """Two models' scores of one object stand side by side."""
    load_parts(warehouse, "r1", "model-1", LABELS, KEPT, [maker.checked("w1", "a", 5)], opened, planned_at=PLANNED_AT)
    load_parts(warehouse, "r2", "model-2", LABELS, KEPT, [maker.checked("w2", "a", 5)], opened, planned_at=PLANNED_AT)
    assert warehouse.count(["w1", "w2"]).scored == 10
    assert warehouse.summary(LABELS, model="model-1").scored == 5
    assert warehouse.objects("model-2") == {"a": LoadedObject(warehouse.ledger("model-2"), PLANNED_AT, 5)}


_CUTS = st.lists(st.integers(0, 4), min_size=1, max_size=3)
_LOADS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(_CUTS, st.integers(0, 2)), min_size=1),
    min_size=1,
    max_size=5,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_LOADS)
def test_the_table_holds_what_was_loaded_last(
    quick_target: Target, loads: list[dict[str, tuple[list[int], int]]]
) -> None:
    """Whatever is loaded in whatever order and cut, each object has exactly its last documents and scores."""
    expected: dict[str, dict[str, float]] = {}
    fresh = Target(quick_target.url, f"t_{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory() as folder, fresh.open() as warehouse:
        maker = PartMaker(Path(folder))
        warehouse.prepare(LABELS, KEPT)
        for objects in loads:
            parts = []
            for uri, (cuts, seed) in objects.items():
                expected[uri] = {}
                for at, size in enumerate(cuts):
                    first, work_id = sum(cuts[:at]), f"{uri}-{at}-{cuts}"
                    parts.append(maker.checked(work_id, uri, size, first=first, seed=seed))
                    rows = maker.rows(uri, size, first=first, seed=seed).to_pydict()
                    expected[uri].update(zip(rows["document_id"], rows["joy"], strict=True))
            load(warehouse, parts)
            assert load(warehouse, parts).work_ids_skipped == len(parts)
        assert contents(warehouse) == {k: v for documents in expected.values() for k, v in documents.items()}


def test_two_processes_load_the_same_at_once(target: Target, maker: PartMaker) -> None:
    """Both succeed, and the rows are there once."""
    parts = [maker.checked(f"w{at}", f"object-{at % 3}", 200, 5, first=300 * at) for at in range(9)]
    processes = [loading_process.start(target, parts) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with target.open() as warehouse:
        assert warehouse.count([part.work_id for part in parts]) == Counts(1800, 45)
        assert warehouse.summary(LABELS).scored == 1800


def test_a_loader_that_is_killed_leaves_nothing_and_a_rerun_is_clean(
    target: Target, maker: PartMaker, tmp_path: Path
) -> None:
    """kill -9 in the middle of a transaction: the old rows stay, and the next load has it all."""
    old = [maker.checked("w1", "a", 50)]
    with target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, old)
    new = [maker.checked("w2", "a", 30_000, 3), maker.checked("w3", "a", 30_000, first=30_003)]
    mark = tmp_path / "stalled"
    process = loading_process.start(target, new, stall=mark)
    while not mark.exists() and process.is_alive():
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with target.open() as warehouse:
        assert warehouse.ledger("model") == {"w1": old[0].digest}
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(50, 0)
        assert load(warehouse, new).rows_superseded == 50
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(60_000, 3)


def test_a_reader_never_sees_both_or_neither(target: Target, warehouse: Warehouse, maker: PartMaker) -> None:
    """While an object is replaced again and again, every count is that of one version."""
    versions = [
        [maker.checked("w1", "a", 300)],
        [maker.checked("w2", "a", 100), maker.checked("w3", "a", 200, first=100)],
    ]
    load(warehouse, versions[0])
    begun, stop, counts = threading.Event(), threading.Event(), set()

    def read() -> None:
        with target.open() as reader:
            while not stop.is_set():
                counts.add(reader.summary(["joy"], strongest=[]).scored)
                begun.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(60)  # a load is over before a slow reader has begun
    for at in range(1, 16):
        load(warehouse, versions[at % 2])
    stop.set()
    thread.join()
    assert counts == {300}


def test_a_part_with_other_bytes_is_not_loaded(warehouse: Warehouse, maker: PartMaker) -> None:
    """Bytes are hashed while they are read: what was not validated is rolled back, with all that came before it."""
    parts = [maker.checked("w1", "a", 5), maker.checked("w2", "a", 5, first=5)]
    Path(parts[1].part).write_bytes(Path(maker.checked("w9", "a", 5).part).read_bytes())
    with pytest.raises(ValidationFailed, match="sha256"):
        load(warehouse, parts)
    assert warehouse.ledger("model") == {}
    assert warehouse.count(["w1", "w2"]) == Counts(0, 0)


def test_counts_that_validation_did_not_see_are_not_loaded(warehouse: Warehouse, maker: PartMaker) -> None:
    """A list that promises other counts than the part has is refused."""
    part = maker.checked("w1", "a", 5, 2)
    with pytest.raises(ValidationFailed, match="5 scored and 2 rejected"):
        load(warehouse, [replace(part, scored=6, rejected=1)])
    assert warehouse.count(["w1"]) == Counts(0, 0)


def test_a_part_of_other_labels_is_not_loaded(warehouse: Warehouse, maker: PartMaker) -> None:
    """Columns are compared by name, type and order."""
    other = PartMaker(maker.folder, labels=("anger", "joy", "calm"))
    with pytest.raises(ValidationFailed, match="columns"):
        load(warehouse, [other.checked("w1", "a", 5)])


def test_an_error_of_the_store_passes_through_the_driver(warehouse: Warehouse, maker: PartMaker) -> None:
    """What the store says reaches the caller as it was, not as a driver's error."""

    def open_part(path: str) -> BinaryIO:
        raise StorageError("no such object", next_step="rerun")

    with pytest.raises(StorageError, match="no such object"):
        load(warehouse, [maker.checked("w1", "a", 5)], open_part)
    assert load(warehouse, [maker.checked("w1", "a", 5)]).rows_loaded == 5


def test_a_work_id_twice_is_refused(warehouse: Warehouse, maker: PartMaker) -> None:
    """A list with one work id twice would load it twice."""
    part = maker.checked("w1", "a", 5)
    with pytest.raises(ValidationFailed, match="twice"):
        load(warehouse, [part, part])


def test_empty_parts_and_parts_of_rejects_only_count_as_loaded(warehouse: Warehouse, maker: PartMaker) -> None:
    """No rows are rows too: the ledger knows them, and a rerun is a no-op."""
    parts = [maker.checked("w1", "a", 0), maker.checked("w2", "b", 0, 7)]
    assert load(warehouse, parts) == LoadSummary(0, 7, work_ids_loaded=2)
    assert load(warehouse, parts) == LoadSummary(work_ids_skipped=2)
    assert warehouse.count(["w1", "w2"]) == Counts(0, 7)
    assert warehouse.summary(LABELS).label_means == {}


def test_objects_share_a_transaction_and_report_progress(warehouse: Warehouse, maker: PartMaker) -> None:
    """Many small objects take few transactions; progress tells the totals."""
    parts = [maker.checked(f"w{at}", f"object-{at}", 3) for at in range(40)]
    seen: list[LoadSummary] = []
    summary = load(warehouse, parts, progress=seen.append)
    assert seen == [LoadSummary(), summary]
    grown = [*parts, maker.checked("new", "object-new", 3)]
    load(warehouse, grown, progress=seen.append)
    assert seen[2:] == [LoadSummary(work_ids_skipped=40), LoadSummary(3, 0, 1, 40)]


def test_the_ledger_of_some_objects(warehouse: Warehouse, maker: PartMaker) -> None:
    """Asked for objects, the ledger answers for these only; of an unprepared warehouse it is empty."""
    load(warehouse, [maker.checked("w1", "a", 1), maker.checked("w2", "b", 1)])
    assert set(warehouse.ledger("model", ["b", "none"])) == {"w2"}
    assert warehouse.ledger("model", []) == {}
    assert warehouse.ledger("other") == {}


def test_nothing_is_there_before_prepare(target: Target) -> None:
    """Plan and status may ask before the first load."""
    with target.open() as warehouse:
        assert warehouse.ledger("model") == {}
        assert warehouse.count(["w1"]) == Counts(0, 0)
        assert warehouse.runs() == []


def test_a_summary_is_what_numpy_says(warehouse: Warehouse, maker: PartMaker) -> None:
    """Means, shares of the strongest label and strongest documents, computed in the warehouse."""
    load(warehouse, [maker.checked("w1", "a", 100, 4, seed=1), maker.checked("w2", "b", 50, seed=2)])
    rows = pa.concat_tables([maker.rows("a", 100, 4, seed=1).slice(4), maker.rows("b", 50, seed=2)])
    scores = np.stack([rows.column(label).to_numpy() for label in LABELS], axis=1)
    summary = warehouse.summary(LABELS, work_ids=["w1", "w2"], top=3)
    assert (summary.scored, summary.rejected, summary.reasons) == (150, 4, {"null": 4})
    assert (summary.truncated, summary.tokens) == (0, 150 * 7)
    assert list(summary.label_means) == list(LABELS)
    assert list(summary.label_means.values()) == pytest.approx(scores.mean(axis=0).tolist(), abs=1e-6)
    wins = np.bincount(scores.argmax(axis=1), minlength=3) / 150
    assert list(summary.label_shares.values()) == pytest.approx(wins.tolist())
    best = np.argsort(-scores[:, 1])[:3]
    ids = rows.column("document_id").to_pylist()
    assert [found.document_id for found in summary.strongest["anger"]] == [ids[at] for at in best]
    assert warehouse.summary(LABELS, work_ids=["w2"]).scored == 50
    assert warehouse.summary(LABELS, work_ids=[]).scored == 0


def test_runs_are_kept_with_their_label_means(warehouse: Warehouse) -> None:
    """A run has one row, however often it is recorded; the latest comes first."""
    now = datetime.now(UTC)
    first = RunRow("r1", "model", "running", now, details={"corpus": ["s3://ü/'"]})
    second = RunRow("r2", "other", "done", now + timedelta(seconds=5), now + timedelta(seconds=9), "m.json", 3, 2, 1)
    warehouse.record_run(first)
    warehouse.record_run(second)
    done = replace(first, state="done", finished_at=now, label_means={"joy": 0.25}, rows=7)
    warehouse.record_run(done)
    assert warehouse.runs() == [second, done]
    assert warehouse.runs("model") == [done]


def test_another_schema_says_what_differs(target: Target, warehouse: Warehouse) -> None:
    """Columns that are missing, extra or of another type are all named, in every table."""
    warehouse.prepare(LABELS, KEPT)
    kept = pa.schema([("author", pa.int64()), ("chapter", pa.string())])
    with pytest.raises(WarehouseError) as caught:
        warehouse.prepare(("joy", "fear"), kept)
    for words in ("fear", "anger", "calm", "year", "chapter", "author is", "is missing", "is extra", "_rejects"):
        assert words in str(caught.value)
    warehouse.prepare(LABELS, KEPT)


def test_a_plan_can_ask_whether_the_table_fits(target: Target) -> None:
    """Before anything is scored, names alone tell most of what would stop the load; nothing is made."""
    with target.open() as warehouse:
        warehouse.check(LABELS, KEPT.names)
        with pytest.raises(WarehouseError, match="clashes with column status"):
            warehouse.check(LABELS, ["status"])
        assert warehouse.runs() == []
        warehouse.prepare(LABELS, KEPT)
        warehouse.check(LABELS, KEPT.names)
        with pytest.raises(WarehouseError, match="chapter .* is missing, author .* is extra, year .* is extra"):
            warehouse.check(LABELS, ["chapter"])
        with pytest.raises(WarehouseError, match="fear .* is missing"):
            warehouse.check((*LABELS, "fear"), KEPT.names)


@pytest.mark.parametrize(
    ("labels", "kept", "words"),
    [
        (("joy", "Status"), [], "clashes with column status"),
        (("joy", "JOY"), [], "label 'JOY' clashes with label 'joy'"),
        (("joy",), ["Joy"], "label 'joy' clashes with kept column 'Joy'"),
        (("joy",), ["work_id"], "clashes with column work_id"),
        (("joy",), ["reason"], "clashes with column reason"),
        (("",), [], "is no column name"),
        (("a\0b",), [], "is no column name"),
    ],
)
def test_names_that_clash_are_refused(target: Target, labels: tuple[str, ...], kept: list[str], words: str) -> None:
    """Labels and kept columns share a table with the house's own columns, whatever their case."""
    with target.open() as warehouse, pytest.raises(WarehouseError, match=words):
        warehouse.prepare(labels, pa.schema([(name, pa.string()) for name in kept]))


def test_any_other_name_is_a_label(target: Target, maker: PartMaker) -> None:
    """Spaces, quotes, other scripts, percent signs and SQL's own words come through."""
    labels = ("select", "a b", 'say "hi"', "it's", "ärger", "怒り", "100%", "{x}", "a;--", "$1", "?", "order")
    kept = pa.schema([("user", pa.string()), ('kept "column"', pa.int64())])
    odd = PartMaker(maker.folder, labels=labels, kept=kept)
    with target.open() as warehouse:
        warehouse.prepare(labels, kept)
        part = odd.checked("w1", 's3://bucket/it\'s a "key" 100%.csv', 20, 1)
        load_parts(warehouse, "r", "m", labels, kept, [part], opened, planned_at=PLANNED_AT)
        warehouse.prepare(labels, kept)
        summary = warehouse.summary(labels, model="m")
        assert list(summary.label_means) == list(labels)
        assert sum(summary.label_shares.values()) == pytest.approx(1)


def test_a_long_uri_is_a_uri(warehouse: Warehouse, maker: PartMaker) -> None:
    """Object names have no length that matters."""
    uri = f"s3://bucket/{os.urandom(4000).hex()}"
    part = maker.checked("w1", uri, 1)
    load(warehouse, [part])
    assert warehouse.objects("model", [uri]) == {uri: LoadedObject({"w1": part.digest}, PLANNED_AT, 1)}


def test_two_hundred_kept_columns(target: Target, maker: PartMaker) -> None:
    """Wide rows load like narrow ones."""
    kept = pa.schema([(f"column {at}", pa.string() if at % 2 else pa.int32()) for at in range(200)])
    wide = PartMaker(maker.folder, kept=kept)
    with target.open() as warehouse:
        warehouse.prepare(LABELS, kept)
        load_parts(warehouse, "r", "m", LABELS, kept, [wide.checked("w1", "a", 50, 5)], opened, planned_at=PLANNED_AT)
        assert warehouse.count(["w1"]) == Counts(50, 5)


def test_a_thousand_labels(target: Target, maker: PartMaker) -> None:
    """Large taxonomies are summarised like small ones."""
    labels = tuple(f"label {at}" for at in range(1000))
    many = PartMaker(maker.folder, labels=labels)
    with target.open() as warehouse:
        warehouse.prepare(labels, KEPT)
        load_parts(warehouse, "r", "m", labels, KEPT, [many.checked("w1", "a", 10)], opened, planned_at=PLANNED_AT)
        assert len(warehouse.summary(labels, strongest=labels[:2]).label_means) == 1000


def test_a_schema_that_is_not_there_is_made(target: Target, maker: PartMaker) -> None:
    """As the tables in it are, by the load; the check before it makes nothing, and refuses nothing."""
    schema = f"made_{uuid.uuid4().hex[:8]}"
    for name in ("emotions", "others"):  # the second one finds the schema
        with Target(target.url, f"{schema}.{name}").open() as warehouse:
            warehouse.check(LABELS, KEPT.names)
            assert warehouse.ledger("model") == {}
            warehouse.prepare(LABELS, KEPT)
            assert load(warehouse, [maker.checked("w1", "a", 5, 1)]).rows_loaded == 5
            warehouse.check(LABELS, KEPT.names)
            assert warehouse.count(["w1"]) == Counts(5, 1)


def _options(target: Target) -> TableOptions:
    narrow: ScoreType = "float16" if target.url.startswith("parquet") else "float32"
    return TableOptions(labels=("calm", "joy"), threshold=0.5, top_label=True, score_type=narrow)


def test_the_columns_that_a_job_asks_for(target: Target, maker: PartMaker) -> None:
    """Labels that are kept, the list of those from a threshold on, and the top label, as numpy says of the part."""
    options, part = _options(target), maker.checked("w1", "a", 200, 3)
    with target.open(options=options) as warehouse:
        for _ in range(2):
            warehouse.check(LABELS, KEPT.names)
            warehouse.prepare(LABELS, KEPT)
        assert load(warehouse, [part]).rows_loaded == 200
        assert load(warehouse, [part]).work_ids_skipped == 1
        means = warehouse.summary(options.stored(LABELS)).label_means
        assert warehouse.count(["w1"]) == Counts(200, 3)
    rows = maker.rows("a", 200, 3).slice(3)
    scores = np.stack([rows.column(label).to_numpy() for label in LABELS], axis=1)
    assert list(means) == ["joy", "calm"]
    assert list(means.values()) == pytest.approx(scores.mean(axis=0)[[0, 2]].tolist(), abs=1e-3)
    found = {row["document_id"]: row for row in read_scores(target)}
    exact = np.float16 if options.score_type == "float16" else np.float32
    for document, row in zip(rows.column("document_id").to_pylist(), scores, strict=True):
        assert "anger" not in found[document]
        assert found[document]["labels"] == [name for name, score in zip(LABELS, row, strict=True) if score >= 0.5]
        assert found[document]["top_label"] == LABELS[row.argmax()]
        assert (found[document]["top_score"], found[document]["joy"]) == (exact(row.max()), exact(row[0]))


def test_other_options_than_those_of_the_first_load_are_refused(target: Target) -> None:
    """Before anything is scored, and by the load: what differs, the rule, and what to do."""
    options = _options(target)
    with target.open(options=options) as warehouse:
        warehouse.prepare(LABELS, KEPT)
    others = {
        "anger .* is missing": replace(options, labels=()),
        "joy .* is extra": replace(options, labels=("calm",)),
        "at least 0.5' instead of .*at least 0.25'": replace(options, threshold=0.25),
        "labels .* is extra": replace(options, threshold=None),
        "top_score .* is extra": replace(options, top_label=False),
    }
    if target.url.startswith("parquet"):
        others["joy is halffloat instead of float"] = replace(options, score_type="float32")
    for words, other in others.items():
        with target.open(options=other) as warehouse:
            with pytest.raises(WarehouseError, match=f"{words}.*first load decides.*give the options of the first"):
                warehouse.check(LABELS, KEPT.names)
            with pytest.raises(WarehouseError, match=words):
                warehouse.prepare(LABELS, KEPT)


def test_a_type_that_the_warehouse_has_not_is_refused(target: Target) -> None:
    """float16 is for those that have it."""
    if not target.url.startswith("parquet"):
        with pytest.raises(WarehouseError, match=r"no such type.*leave --score-type out"):
            target.open(options=TableOptions(score_type="float16"))


def test_columns_of_options_clash_as_others_do(target: Target) -> None:
    """A kept column may have their names only where the job does not ask for them."""
    with target.open(options=TableOptions(top_label=True)) as warehouse:
        with pytest.raises(WarehouseError, match="'top_label' clashes with column top_label"):
            warehouse.check(LABELS, ["top_label"])
        warehouse.check(LABELS, ["labels"])


def test_a_kept_column_is_added_later(target: Target, warehouse: Warehouse, maker: PartMaker) -> None:
    """Older rows have null in it; the two tables that hold kept columns get it, and nothing else may change."""
    load(warehouse, [maker.checked("w1", "a", 3, 1)])
    more = pa.schema([*KEPT, pa.field("chapter", pa.string())])
    later = PartMaker(maker.folder, kept=more)
    with target.open() as other:
        other.check(LABELS, more.names)
        for _ in range(2):
            other.prepare(LABELS, more)
        parts = [later.checked("w2", "b", 2, 1)]
        load_parts(other, "run", "model", LABELS, more, parts, opened, planned_at=PLANNED_AT)
        assert other.count(["w1", "w2"]) == Counts(5, 2)
        with pytest.raises(WarehouseError, match="chapter .* is extra"):
            other.prepare(LABELS, KEPT)
    warehouse.close()
    chapters = {row["document_id"].partition("#")[0]: row["chapter"] for row in read_scores(target)}
    assert chapters["a"] is None
    assert chapters["b"] is not None


def test_loaded_work_ids_are_a_quick_no_op(target: Target, maker: PartMaker) -> None:
    """A rerun of a large corpus costs one question to the ledger."""
    part = maker.checked("w", "a", 0)
    parts = [replace(part, work_id=f"{at:032x}", uri=f"s3://bucket/object-{at}.parquet") for at in range(2_000)]
    with target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, parts)
        shutil.rmtree(maker.folder)
        started = time.monotonic()
        assert load(warehouse, parts) == LoadSummary(work_ids_skipped=2_000)
        assert time.monotonic() - started < 30


def test_an_earlier_plan_does_not_replace_what_a_later_one_loaded(warehouse: Warehouse, maker: PartMaker) -> None:
    """Run A plans, run B plans and loads a newer version, then A loads: B's rows stay, A's other objects go in."""
    older = [maker.checked("w1", "a", 5, 1), maker.checked("w2", "b", 3)]
    newer = [maker.checked("w3", "a", 4, seed=2)]
    load(warehouse, newer, planned_at=LATER)
    before = contents(warehouse)
    assert load(warehouse, older) == LoadSummary(3, 0, work_ids_loaded=1, outdated=("a",))
    assert warehouse.ledger("model") == {"w3": newer[0].digest, "w2": older[1].digest}
    assert before.items() <= contents(warehouse).items()
    assert load(warehouse, older) == LoadSummary(work_ids_skipped=1, outdated=("a",))
    assert warehouse.count(["w1", "w2", "w3"]) == Counts(7, 0)


def test_a_version_that_was_put_back_is_the_newest(warehouse: Warehouse, maker: PartMaker) -> None:
    """The order is that of the plans: what the last one saw is in the table, also when it is what was there first."""
    first, second = [maker.checked("w1", "a", 5)], [maker.checked("w2", "a", 4)]
    load(warehouse, first)
    load(warehouse, second, planned_at=LATER)
    last = load(warehouse, first, planned_at=LATER + timedelta(seconds=1))
    assert last == LoadSummary(5, 0, work_ids_loaded=1, rows_superseded=4)


def test_a_plan_that_finds_its_work_loaded_counts_as_the_later_one(warehouse: Warehouse, maker: PartMaker) -> None:
    """Nothing is written for it but its time: what was planned before it no longer replaces the object."""
    first, second = [maker.checked("w1", "a", 5)], [maker.checked("w2", "a", 4)]
    load(warehouse, first)
    last = LATER + timedelta(seconds=1)
    assert load(warehouse, first, planned_at=last) == LoadSummary(work_ids_skipped=1)
    assert load(warehouse, first) == LoadSummary(work_ids_skipped=1)
    assert warehouse.objects("model") == {"a": LoadedObject({"w1": first[0].digest}, last, 5)}
    assert load(warehouse, second, planned_at=LATER) == LoadSummary(outdated=("a",))


@pytest.mark.parametrize("newer_first", [True, False])
def test_two_plans_that_load_at_once_leave_the_later_one(
    target: Target, warehouse: Warehouse, maker: PartMaker, newer_first: bool
) -> None:
    """One is in the middle of its transaction when the other has asked the ledger: the later plan's rows are there."""
    older = ([maker.checked("w1", "a", 5)], PLANNED_AT)
    newer = ([maker.checked("w2", "a", 4, seed=2)], LATER)
    (first, first_time), (second, second_time) = (newer, older) if newer_first else (older, newer)
    inside, asked = threading.Event(), threading.Event()

    def held(path: str) -> BinaryIO:
        inside.set()
        assert asked.wait(60)
        return opened(path)

    def load_second() -> LoadSummary:
        assert inside.wait(60)
        with target.open() as other:
            return load(other, second, planned_at=second_time, progress=lambda _: asked.set())

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(load_second)
        loaded, outdated = load(warehouse, first, held, planned_at=first_time), waiting.result(60).outdated
        if has_locks(warehouse):
            assert (loaded.work_ids_loaded, outdated) == (1, ("a",) if newer_first else ())
    assert warehouse.ledger("model") == {"w2": newer[0][0].digest}
    assert warehouse.count(["w1", "w2"]) == Counts(4, 0)


def test_a_ledger_from_before_plans_had_a_time_is_taken_over(
    target: Target, warehouse: Warehouse, maker: PartMaker
) -> None:
    """Its tables get the column, its rows count as the oldest, and it can be read before that."""
    old = [maker.checked("w1", "a", 5), maker.checked("w2", "b", 2)]
    load(warehouse, old)
    assert isinstance(warehouse, RetryingWarehouse)
    inner = warehouse.inner
    if not isinstance(inner, SqlWarehouse):
        pytest.skip("this kind of warehouse has always had it")
    with inner.transaction():
        inner.execute(f"ALTER TABLE {inner.ledger_table.sql} DROP COLUMN planned_at")
    assert warehouse.ledger("model") == {part.work_id: part.digest for part in old}
    with target.open() as later:
        later.prepare(LABELS, KEPT)
        assert [item.planned_at for item in later.objects("model").values()] == [None, None]
        new = [maker.checked("w3", "a", 4), old[1]]
        assert load(later, new) == LoadSummary(4, 0, work_ids_loaded=1, work_ids_skipped=1, rows_superseded=5)
        assert {item.planned_at for item in later.objects("model").values()} == {PLANNED_AT}


def test_an_object_is_removed_whole(warehouse: Warehouse, maker: PartMaker) -> None:
    """Its rows, rejects and ledger entries go; other objects stay, and its scores by another model."""
    parts = [maker.checked("w1", "a", 5, 2), maker.checked("w2", "a", 4, first=7), maker.checked("w3", "b", 3, 1)]
    load(warehouse, parts)
    other = [maker.checked("w4", "a", 6)]
    load_parts(warehouse, "r2", "model-2", LABELS, KEPT, other, opened, planned_at=PLANNED_AT)
    assert remove_objects(warehouse, "run", "model", ["a", "never was"], LATER) == 11
    assert warehouse.count(["w1", "w2", "w3", "w4"]) == Counts(9, 1)
    assert warehouse.ledger("model") == {"w3": parts[2].digest}
    assert warehouse.ledger("model-2") == {"w4": other[0].digest}
    assert remove_objects(warehouse, "run", "model", ["a"], LATER) == 0
    assert warehouse.objects("model")["a"] == LoadedObject({}, LATER, 0, gone=True)
    assert load(warehouse, parts, planned_at=LATER).rows_loaded == 9
    assert warehouse.objects("model")["a"] == LoadedObject(warehouse.ledger("model", ["a"]), LATER, 9 + 2)


def test_what_an_earlier_plan_saw_of_a_removed_object_stays_away(warehouse: Warehouse, maker: PartMaker) -> None:
    """It is outdated, as where a later version is loaded; what is planned after the removal is loaded again."""
    parts = [maker.checked("w1", "a", 5, 2), maker.checked("w2", "b", 3)]
    load(warehouse, parts)
    removed, back = LATER, LATER + timedelta(seconds=2)
    assert remove_objects(warehouse, "run", "model", ["a"], removed) == 7
    changed = maker.checked("w3", "a", 4)
    assert load(warehouse, parts) == LoadSummary(work_ids_skipped=1, outdated=("a",))
    assert load(warehouse, [changed], planned_at=removed - timedelta(seconds=1)) == LoadSummary(outdated=("a",))
    assert remove_objects(warehouse, "run", "model", ["a"], back - timedelta(seconds=1)) == 0
    assert load(warehouse, [changed], planned_at=removed + timedelta(microseconds=1)) == LoadSummary(outdated=("a",))
    assert warehouse.count(["w1", "w2", "w3"]) == Counts(3, 0)
    assert load(warehouse, parts, planned_at=back) == LoadSummary(5, 2, work_ids_loaded=1, work_ids_skipped=1)
    assert warehouse.ledger("model") == {part.work_id: part.digest for part in parts}


def test_the_ledger_says_when_a_run_changed_the_tables(warehouse: Warehouse, maker: PartMaker) -> None:
    """Loading and removing do; what finds nothing to do, and other runs, do not."""
    assert warehouse.changed_at("run") is None
    before = datetime.now(UTC)
    load(warehouse, [maker.checked("w1", "a", 5)])
    loaded = warehouse.changed_at("run")
    assert loaded is not None
    assert before <= loaded <= datetime.now(UTC)
    load(warehouse, [maker.checked("w1", "a", 5)])
    assert (warehouse.changed_at("run"), warehouse.changed_at("other")) == (loaded, None)
    remove_objects(warehouse, "other", "model", ["a"], LATER)
    assert warehouse.changed_at("run") is None
    assert warehouse.changed_at("other") > loaded  # type: ignore[operator]


def test_what_a_later_plan_has_seen_is_not_removed(target: Target, warehouse: Warehouse, maker: PartMaker) -> None:
    """Neither what it has loaded, nor what it is loading at the moment, over a version that was to go."""
    load(warehouse, [maker.checked("w1", "a", 5), maker.checked("w2", "b", 3)])
    load(warehouse, [maker.checked("w3", "b", 4)], planned_at=LATER)
    inside, asked = threading.Event(), threading.Event()

    def held(path: str) -> BinaryIO:
        inside.set()
        assert asked.wait(60)
        return opened(path)

    def remove() -> int:
        assert inside.wait(60)
        with target.open() as other:
            asked.set()
            return remove_objects(other, "run", "model", ["a", "b"], LATER - timedelta(seconds=1))

    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(remove)
        load(warehouse, [maker.checked("w4", "a", 6)], held, planned_at=LATER)
        assert removed.result(60) in (
            [0] if has_locks(warehouse) else [0, 5]
        )  # the older version, before it is replaced
    assert warehouse.count(["w3", "w4"]) == Counts(10, 0)


def test_many_objects_are_removed(warehouse: Warehouse, maker: PartMaker) -> None:
    """More than one transaction takes."""
    full, empty = maker.checked("w", "a", 1), maker.checked("v", "a", 0)
    parts = [
        replace(empty if at % 50 else full, work_id=f"{at:032x}", uri=f"s3://bucket/object-{at}") for at in range(1_100)
    ]
    load(warehouse, parts)
    assert remove_objects(warehouse, "run", "model", [part.uri for part in parts], LATER) == 22
    assert warehouse.ledger("model") == {}
