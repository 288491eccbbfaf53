"""Of two plans the later one counts, in every warehouse: whoever loads first, and for objects that left, too."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import pytest

from corpuscore.warehouse import Counts, LoadedObject, LoadSummary, Warehouse, load_parts, remove_objects
from corpuscore.warehouse.retries import RetryingWarehouse
from corpuscore.warehouse.sql import SqlWarehouse
from tests.contracts.loads import contents, has_locks, load
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.warehouses import Target

LATER = PLANNED_AT + timedelta(minutes=1)


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
