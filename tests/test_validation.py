from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.errors import StorageError, StorageUnavailable
from corpuscore.records import TOKEN_EDGES, Partition, Receipt, ScorerInfo
from corpuscore.validation import Validation, validate
from corpuscore.validation.checks import check_not_finite
from corpuscore.validation.duplicates import IdSketch, id_hashes
from tests.parts import LABELS, PartMaker, opened

SIGMOID = ScorerInfo(LABELS, "sigmoid", "model", "bert", "fp32", "model")
SOFTMAX = replace(SIGMOID, activation="softmax")
Work = tuple[Partition, str, Receipt]


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts into a folder of the test."""
    return PartMaker(tmp_path)


def check(works: list[Work], scorer: ScorerInfo = SIGMOID, **options: Any) -> Validation:
    """Validate work that is complete but for what the test broke."""
    partitions = [(partition, work_id) for partition, work_id, _ in works]
    receipts = {work_id: receipt for _, work_id, receipt in works}
    options = {"max_reject_fraction": 0.5, "open_part": opened, **options}
    return validate(partitions, receipts, scorer, **options)


def levels(validation: Validation) -> dict[str, str]:
    """Level by check."""
    return {finding.check: finding.level for finding in validation.findings}


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """Rows with other values in a column."""
    at = rows.column_names.index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))


def test_sound_parts_have_no_findings_and_are_handed_to_load(maker: PartMaker) -> None:
    """What is checked is what load gets, with its digests and counts."""
    works = [maker.work(maker.rows(uri, 200, seed=at), uri) for at, uri in enumerate(("a", "b", "c"))]
    validation = check(works)
    assert validation.findings == ()
    assert [(part.work_id, part.digest, part.scored) for part in validation.parts] == [
        (work_id, receipt.digest, 200) for _, work_id, receipt in works
    ]
    assert validation.kept == maker.kept
    assert (validation.rows, validation.scored, validation.checked) == (600, 600, 3)


def test_documents_are_counted_by_score_and_by_tokens(maker: PartMaker) -> None:
    """Of all parts that are read; rejects have neither."""
    tables = [maker.rows("a", 10, 3, seed=1), maker.rows("b", 1000, seed=2)]
    validation = check([maker.work(rows, uri) for rows, uri in zip(tables, "ab", strict=True)])
    together = pa.concat_tables(tables)
    for label in LABELS:
        scores = together.column(label).drop_null().to_pylist()
        expected = Counter(min(int(score * 20), 19) for score in scores)
        assert validation.score_bins[label] == [expected[at] for at in range(20)]
    tokens = together.column("token_count").drop_null().to_pylist()
    places = Counter(next((at for at, edge in enumerate(TOKEN_EDGES) if count <= edge), 10) for count in tokens)
    assert validation.token_bins == [places[at] for at in range(11)]
    assert check([]).score_bins == {}


def test_label_means_are_those_of_all_parts(maker: PartMaker) -> None:
    """Means weigh documents, not parts."""
    tables = [maker.rows("a", 10, 3, seed=1), maker.rows("b", 1000, seed=2)]
    validation = check([maker.work(rows, uri) for rows, uri in zip(tables, "ab", strict=True)])
    together = pa.concat_tables(tables)
    for label in LABELS:
        assert validation.label_means[label] == pytest.approx(pc.mean(together.column(label)).as_py(), abs=1e-6)


def test_a_missing_receipt_is_an_error(maker: PartMaker) -> None:
    """Nothing is loaded while work is missing."""
    partition, work_id, _ = maker.work(maker.rows("a", 5))
    validation = validate([(partition, work_id)], {}, SIGMOID, opened, max_reject_fraction=0)
    assert levels(validation)["receipt"] == "error"
    assert work_id in validation.errors[0].message


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"etag": "other"}, "object"),
        ({"uri": "elsewhere"}, "object"),
        ({"rows": 6}, "counts"),
        ({"rows": 6, "scored": 6}, "counts"),
        ({"truncated": 1}, "counts"),
        ({"digest": "0" * 64}, "part"),
    ],
)
def test_a_receipt_that_does_not_fit_is_an_error(maker: PartMaker, changes: dict[str, Any], name: str) -> None:
    """Object, counts and digest of a receipt are compared with plan and part."""
    validation = check([maker.work(maker.rows("a", 5), changes=changes)])
    assert levels(validation)[name] == "error"


def test_rows_are_compared_with_the_manifest(maker: PartMaker) -> None:
    """A Parquet footer that says another number of rows stops the load."""
    partition, work_id, receipt = maker.work(maker.rows("a", 5))
    assert levels(check([(replace(partition, rows=5), work_id, receipt)])) == {}
    assert levels(check([(replace(partition, rows=4), work_id, receipt)]))["counts"] == "error"


def test_a_part_that_is_gone_or_no_parquet_is_to_be_scored_again(maker: PartMaker) -> None:
    """Damage names its work ids, so that a rerun scores them."""
    gone = maker.work(maker.rows("a", 5), "a")
    garbage = maker.work(maker.rows("b", 5), "b")
    Path(garbage[2].part).write_bytes(b"no parquet")
    sound = maker.work(maker.rows("c", 5), "c")

    def opener(path: str) -> Any:
        if path == gone[2].part:
            raise StorageError(f"no such object {path}")
        return opened(path)

    validation = check([gone, garbage, sound], open_part=opener)
    assert set(validation.damaged) == {gone[1], garbage[1]}
    assert validation.findings[0].values["problems"] == 2


def test_a_store_that_does_not_answer_is_no_finding(maker: PartMaker) -> None:
    """What may pass later is raised, for its owner to retry."""

    def opener(path: str) -> Any:
        raise StorageUnavailable("timeout")

    with pytest.raises(StorageUnavailable):
        check([maker.work(maker.rows("a", 5))], open_part=opener)


def test_labels_in_another_order_are_an_error(maker: PartMaker) -> None:
    """The columns of a part stand as the scorer names them."""
    scorer = replace(SIGMOID, labels=("anger", "joy", "calm"))
    assert levels(check([maker.work(maker.rows("a", 5))], scorer))["labels"] == "error"


def test_other_columns_are_an_error(maker: PartMaker) -> None:
    """A part with other columns of its own, or other types, is not read further."""
    rows = maker.rows("a", 5)
    assert levels(check([maker.work(rows.rename_columns(["id", *rows.column_names[1:]]))]))["schema"] == "error"
    wide = rows.set_column(8, "joy", pc.cast(rows.column("joy"), pa.float64()))
    assert levels(check([maker.work(wide)]))["schema"] == "error"


@pytest.mark.parametrize(
    ("value", "name"),
    [(float("nan"), "finite"), (float("inf"), "finite"), (None, "finite"), (1.01, "range"), (-0.01, "range")],
)
def test_scores_are_finite_probabilities(maker: PartMaker, value: float | None, name: str) -> None:
    """One bad score among many is found, wherever it is."""
    rows = with_column(maker.rows("a", 50), "anger", [*([0.5] * 49), value])
    assert levels(check([maker.work(rows)]))[name] == "error"


def test_softmax_rows_sum_to_one(maker: PartMaker) -> None:
    """Rows that do not are counted; pooling windows by maximum may only raise the sum."""
    rows = maker.rows("a", 4)
    for label, values in zip(LABELS, ([0.2, 0.2, 0.1, 0.3], [0.3, 0.3, 0.9, 0.3], [0.5, 0.5, 0.0, 0.5]), strict=True):
        rows = with_column(rows, label, values)
    validation = check([maker.work(rows)], SOFTMAX)
    assert levels(validation) == {"softmax": "error"}
    assert "1 of 4 rows" in validation.errors[0].message
    assert levels(check([maker.work(rows)], SOFTMAX, long_documents="max")) == {}


def test_the_same_scores_for_many_texts_are_an_error(maker: PartMaker) -> None:
    """A model that cannot tell a hundred texts apart is broken."""
    rows = maker.rows("a", 150)
    for label in LABELS:
        rows = with_column(rows, label, [0.25] * 150)
    assert levels(check([maker.work(rows)])) == {"constant": "error"}


def test_copies_of_one_text_may_have_the_same_scores(maker: PartMaker) -> None:
    """Constant output is judged by different texts, not by rows."""
    rows = maker.rows("a", 150)
    for label in LABELS:
        rows = with_column(rows, label, [0.25] * 150)
    assert levels(check([maker.work(rows, changes={"unique_texts": 1})])) == {}


def test_one_text_in_many_objects_is_one_text(maker: PartMaker) -> None:
    """Two hundred small objects with the same text are no two hundred different texts; with different ones they are."""
    rows = maker.rows("a", 1)
    for label in LABELS:
        rows = with_column(rows, label, [0.25])
    same = [maker.work(rows, f"a{at}", {"text_hashes": ("00ff",)}) for at in range(200)]
    assert levels(check(same)) == {"duplicates": "warning"}
    different = [maker.work(rows, f"a{at}", {"text_hashes": (f"{at:04x}",)}) for at in range(200)]
    assert levels(check(different))["constant"] == "error"


@pytest.mark.parametrize(
    ("rows", "not_finite", "others", "level"),
    [(1000, 1, 0, None), (1000, 10, 5, None), (1000, 11, 0, "error"), (5, 3, 2, "error"), (5, 2, 2, None)],
)
def test_few_documents_without_finite_scores_are_rejects_and_many_an_error(
    rows: int, not_finite: int, others: int, level: str | None
) -> None:
    """One broken document stops no run of a thousand; a model that scores none, or breaks often, is not loaded."""
    reasons = {"not_finite": not_finite, "null": others}
    found = check_not_finite(rows, not_finite + others, reasons)
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all(str(not_finite) in finding.message and "fp32" in finding.message for finding in found)


def test_one_label_that_never_changes_is_a_warning(maker: PartMaker) -> None:
    """A label may be rare enough to round to one number."""
    rows = with_column(maker.rows("a", 150), "calm", [0.0] * 150)
    assert levels(check([maker.work(rows)])) == {"constant": "warning"}


def test_rejects_above_the_threshold_name_their_reasons(maker: PartMaker) -> None:
    """At the threshold they are a fact, above it an error."""
    work = maker.work(maker.rows("a", 8, 2))
    assert levels(check([work], max_reject_fraction=0.2)) == {"rejects": "info"}
    validation = check([work], max_reject_fraction=0.1)
    assert levels(validation) == {"rejects": "error"}
    assert "null: 2" in validation.errors[0].message
    assert "20.00%" in validation.errors[0].message


def test_nothing_scored_is_said(maker: PartMaker) -> None:
    """No documents, or none that could be scored, is never silent."""
    assert levels(check([maker.work(maker.rows("a", 0))])) == {"scored": "warning"}
    assert levels(check([maker.work(maker.rows("a", 0, 3))], max_reject_fraction=1)) == {"scored": "warning"}
    assert levels(check([maker.work(maker.rows("a", 0, 3))])) == {"rejects": "error"}


def test_null_ids_are_an_error(maker: PartMaker) -> None:
    """A document without an id could never be found again."""
    rows = maker.rows("a", 5)
    ids = pa.array([None, *rows.column("document_id").to_pylist()[1:]])
    schema = rows.schema.set(0, pa.field("document_id", pa.string()))
    broken = pa.table([ids, *rows.columns[1:]], schema=schema)
    assert "error" in levels(check([maker.work(broken)])).values()


def test_repeated_ids_are_reported_and_kept(maker: PartMaker) -> None:
    """Ids that repeat, within and across parts, are a warning with their number."""
    works = [maker.work(maker.rows("same", 30, seed=at), uri) for at, uri in enumerate("ab")]
    validation = check(works)
    assert levels(validation) == {"duplicates": "warning"}
    assert validation.findings[0].values["duplicates"] == 30
    assert len(validation.parts) == 2


def test_kept_columns_have_one_type_in_all_parts(maker: PartMaker) -> None:
    """Objects that disagree on a kept column cannot share a table."""
    other = PartMaker(maker.folder, kept=pa.schema([("author", pa.string()), ("year", pa.string())]))
    validation = check([maker.work(maker.rows("a", 5), "a"), other.work(other.rows("b", 5), "b")])
    assert levels(validation) == {"kept": "error"}
    assert "year string" in validation.errors[0].message
    assert validation.damaged == ()


def test_means_that_moved_are_a_warning(maker: PartMaker) -> None:
    """A move beyond chance is shown with both values; the same means are a fact."""
    work = maker.work(maker.rows("a", 2000))
    means = check([work]).label_means
    assert levels(check([work], previous_means=means)) == {"drift": "info"}
    moved = check([work], previous_means={**means, "joy": 0.2})
    assert levels(moved) == {"drift": "warning"}
    assert f"joy 0.200 to {means['joy']:.3f}" in moved.findings[0].message


def test_few_documents_are_no_drift(maker: PartMaker) -> None:
    """With ten documents, means move by chance."""
    validation = check([maker.work(maker.rows("a", 10))], previous_means=dict.fromkeys(LABELS, 0.4))
    assert levels(validation) == {"drift": "info"}


def test_parts_that_are_loaded_are_not_read(maker: PartMaker) -> None:
    """A no-op run reads no part, and still hands the whole list to load."""
    works = [maker.work(maker.rows(uri, 5), uri) for uri in "ab"]
    validation = check(works, loaded={work_id: receipt.digest for _, work_id, receipt in works[:1]})
    assert validation.checked == 1
    assert len(validation.parts) == 2
    assert validation.rows == 10


def test_many_problems_are_one_finding_with_examples(maker: PartMaker) -> None:
    """A hundred missing receipts do not make a hundred findings."""
    works = [maker.work(maker.rows("a", 1), f"uri-{at}") for at in range(20)]
    validation = validate([work[:2] for work in works], {}, SIGMOID, opened, max_reject_fraction=1)
    assert [finding.values["problems"] for finding in validation.errors] == [20]
    assert "17 more" in validation.errors[0].message


@given(st.lists(st.sampled_from([f"id-{at}" for at in range(50)])), st.integers(1, 5))
def test_repeated_ids_are_counted_exactly_below_the_bound(ids: list[str], pieces: int) -> None:
    """However the ids are cut into batches, the repeats are all of them but the first of each."""
    sketch = IdSketch()
    for at in range(pieces):
        sketch.add(id_hashes(pa.array(ids[at::pieces], pa.string())))
    found = sketch.duplicates()
    assert found.exact
    assert found.count == len(ids) - len(set(ids))


def test_repeated_ids_are_estimated_above_the_bound() -> None:
    """With a sixteenth of the memory the estimate is within a tenth."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 400_000, dtype=np.uint64)
    sketch = IdSketch(bound=50_000)
    everything = np.concatenate([hashes, hashes])
    generator.shuffle(everything)
    for chunk in np.array_split(everything, 37):
        sketch.add(chunk)
    found = sketch.duplicates()
    assert not found.exact
    assert found.count == pytest.approx(400_000, rel=0.1)


def test_the_order_of_parts_does_not_change_the_result(maker: PartMaker) -> None:
    """Findings and means are those of the set of parts."""
    works = [maker.work(maker.rows(uri, 50, at, seed=at), uri) for at, uri in enumerate("abcdef")]
    first = check(works, threads=1)
    random.Random(0).shuffle(works)
    second = check(works, threads=3)
    assert first.findings == second.findings
    assert first.label_means == pytest.approx(second.label_means)
