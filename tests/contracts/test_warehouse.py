"""What every warehouse holds to. The tests run for each file in pipeline/corpuscore/warehouse/backends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.errors import StorageError, ValidationFailed
from corpuscore.warehouse import Counts, LoadedObject, LoadSummary, RunRow, Warehouse, load_parts
from tests.contracts import loading_process
from tests.contracts.loads import contents, load
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.warehouses import Target


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


def test_a_long_uri_is_a_uri(warehouse: Warehouse, maker: PartMaker) -> None:
    """Object names have no length that matters."""
    uri = f"s3://bucket/{os.urandom(4000).hex()}"
    part = maker.checked("w1", uri, 1)
    load(warehouse, [part])
    assert warehouse.objects("model", [uri]) == {uri: LoadedObject({"w1": part.digest}, PLANNED_AT, 1)}


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
