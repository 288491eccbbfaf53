"""Which columns the tables of every warehouse have, and what is refused before anything is loaded."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from corpuscore.errors import WarehouseError
from corpuscore.options import TableOptions
from corpuscore.records import ScoreType
from corpuscore.warehouse import Counts, Warehouse, load_parts
from tests.contracts.loads import load
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.warehouses import Target, read_scores


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
