"""Kept columns of other types, or missing, in some objects: one type for all, or refused by the plan, by name."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.corpus import DocumentReader, KeptColumns, list_objects, split
from corpuscore.errors import CorpusError
from corpuscore.kinds import kept_type, type_named, widened
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, whole

READING = ReadOptions(id_columns=("id",), keep_columns=("x",))


def table(folder: Path, name: str, x: pa.Array | None, **options: Any) -> None:
    """An object with an id, a text and x."""
    rows = 2 if x is None else len(x)
    columns = {"id": list(map(str, range(rows))), "text": ["a"] * rows} | ({} if x is None else {"x": x})
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    put(folder, name, sink.getvalue())


def planned(folder: Path, reading: ReadOptions = READING) -> pa.Schema:
    """Kept columns as a plan finds them."""
    kept = KeptColumns(reading)
    list(split(list_objects([str(folder)]), 10, reading, kept))
    return kept.schema


WIDER: list[tuple[pa.DataType, pa.DataType, pa.DataType]] = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.int8(), pa.float32(), pa.float32()),
    (pa.int32(), pa.float32(), pa.float64()),
    (pa.int64(), pa.float64(), pa.float64()),
    (pa.int64(), pa.null(), pa.int64()),
    (pa.uint64(), pa.int64(), pa.decimal128(20, 0)),
    (pa.decimal128(10, 2), pa.decimal128(9, 4), pa.decimal128(12, 4)),
    (pa.int32(), pa.decimal128(10, 2), pa.decimal128(12, 2)),
    (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("us")),
    (pa.timestamp("s", "Asia/Tokyo"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.string(), pa.large_string(), pa.string()),
    (pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.string()),
    (pa.null(), pa.null(), pa.string()),
]


@pytest.mark.parametrize(("one", "other", "both"), WIDER)
def test_types_are_widened(tmp_path: Path, one: pa.DataType, other: pa.DataType, both: pa.DataType) -> None:
    """In whatever order the objects come; the values of parts are the values of the table."""
    for at, kinds in enumerate(((one, other), (other, one))):
        for name, kind in zip("ab", kinds, strict=True):
            values = pa.array([None, None], kind) if pa.types.is_null(kind) else pa.array(["7", None]).cast(
                pa.int64() if pa.types.is_temporal(kind) else pa.string()
            ).cast(kind)  # fmt: skip
            table(tmp_path / str(at), f"{name}.parquet", values)
        schema = planned(tmp_path / str(at))
        assert schema == pa.schema([("x", both)])
        for item in list_objects([str(tmp_path / str(at))]):
            with DocumentReader(whole(item), READING) as reader:
                (batch,) = reader
            assert batch.column("x").cast(both).null_count in (1, 2)


REFUSED: list[tuple[pa.DataType, pa.DataType]] = [
    (pa.int64(), pa.string()),
    (pa.bool_(), pa.int8()),
    (pa.decimal128(38, 0), pa.decimal128(38, 2)),
    (pa.decimal128(10, 2), pa.float64()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.date32(), pa.timestamp("us")),
]


@pytest.mark.parametrize(("one", "other"), REFUSED)
def test_types_that_do_not_go_together_are_refused(tmp_path: Path, one: pa.DataType, other: pa.DataType) -> None:
    """By the plan, which names the column, both objects and both types."""
    for name, kind in (("a", one), ("b", other)):
        table(tmp_path, f"{name}.parquet", pa.nulls(2, kind))
    with pytest.raises(CorpusError, match=r"b\.parquet.*'x' has the type .*a\.parquet.*Next: make the types equal"):
        planned(tmp_path)


@pytest.mark.parametrize(("value", "fits"), [(2**53, True), (-(2**53), True), (2**53 + 1, False), (None, True)])
def test_large_integers_are_no_floating_point_numbers(tmp_path: Path, value: int | None, fits: bool) -> None:
    """The footer says how large they are, row group by row group."""
    table(tmp_path, "a.parquet", pa.array([1, None, value], pa.int64()), row_group_size=1)
    table(tmp_path, "b.parquet", pa.array([1.5]))
    if fits:
        assert planned(tmp_path) == pa.schema([("x", pa.float64())])
    else:
        with pytest.raises(CorpusError, match=r"a\.parquet.*larger ones"):
            planned(tmp_path)


def test_integers_of_unknown_size_are_refused_beside_floating_point(tmp_path: Path) -> None:
    """Where a footer has no statistics."""
    table(tmp_path, "a.parquet", pa.array([1.5]))
    table(tmp_path, "b.parquet", pa.array([1]), write_statistics=False)
    with pytest.raises(CorpusError, match="the footer does not say"):
        planned(tmp_path)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("name", ["b.parquet", "b.jsonl", "b.csv"])
def test_a_kept_column_that_some_objects_lack_is_null_there(tmp_path: Path, name: str, small: bool) -> None:
    """With a word; an id column that they lack is an error of the plan that names the object."""
    first = put(tmp_path, name.replace("b.", "a."), _body(name, {"id": "1", "text": "a", "x": "x"}, 1))
    second = put(tmp_path, name, _body(name, {"id": "2", "text": "b"}, 1 if small else 20))
    assert planned(tmp_path) == pa.schema([("x", pa.string())])
    with DocumentReader(whole(second), READING) as reader:
        found = [value for batch in reader for value in batch.column("x").to_pylist()]
    assert set(found) == {None}
    assert reader.counts.oddities.found["missing_column"].count == len(found)
    assert second.uri in reader.counts.oddities.found["missing_column"].example
    put(tmp_path, name, _body(name, {"text": "b", "x": "x"}, 1 if small else 20))
    with pytest.raises(CorpusError, match=rf"{name}: no column 'id'"):
        planned(tmp_path)
    assert first.uri.endswith(name.replace("b.", "a."))


def _body(name: str, row: dict[str, str], rows: int) -> bytes:
    if name.endswith("parquet"):
        sink = io.BytesIO()
        pq.write_table(pa.table({key: [value] * rows for key, value in row.items()}), sink)
        return sink.getvalue()
    if name.endswith("csv"):
        return ",".join(row).encode() + b"\n" + (",".join(row.values()).encode() + b"\n") * rows
    return (str(row).replace("'", '"').encode() + b"\n") * rows


def test_a_column_that_no_object_has_is_refused(tmp_path: Path) -> None:
    """A misspelt name is an error, not a column of nulls."""
    for name in "ab":
        table(tmp_path, f"{name}.parquet", None)
    with pytest.raises(CorpusError, match=r"a\.parquet: no column 'x'.*'id', 'text'"):
        planned(tmp_path)


def test_json_and_csv_are_text(tmp_path: Path) -> None:
    """1 and 1.0 of two objects stay what was written; beside a Parquet column of text they go well."""
    put(tmp_path, "a.jsonl", b'{"id": 1, "text": "a", "x": 1}\n')
    put(tmp_path, "b.jsonl", b'{"id": 2, "text": "a", "x": 1.0}\n')
    put(tmp_path, "c.csv", b"id,text,x\n3,a,1.00\n")
    table(tmp_path, "d.parquet", pa.array(["1"]))
    assert planned(tmp_path) == pa.schema([("x", pa.string())])
    table(tmp_path, "e.parquet", pa.array([1]))
    with pytest.raises(CorpusError, match=r"e\.parquet.*JSON and CSV are text"):
        planned(tmp_path)


KINDS = st.sampled_from(
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.null(), pa.decimal128(10, 2), pa.decimal128(38, 37)),
    ]
)


@given(KINDS, KINDS, st.integers(-(2**53), 2**53))
def test_a_wider_type_holds_the_values_of_both(one: pa.DataType, other: pa.DataType, value: int) -> None:
    """In any order, and what Arrow's safe cast makes of a value is the value."""
    kinds = kept_type(one), kept_type(other)
    both = widened(*kinds)
    assert both == widened(*reversed(kinds))
    if both is None:
        return
    assert widened(both, kinds[0]) == widened(both, kinds[1]) == both
    assert type_named(str(both)) == both
    for kind in kinds:
        try:
            values = pa.nulls(2) if pa.types.is_null(kind) else pa.array([value, None], pa.int64()).cast(kind)
        except pa.ArrowInvalid:
            continue  # not one of its values
        assert [held and Decimal(held) for held in values.cast(both).to_pylist()] == [
            held and Decimal(held) for held in values.to_pylist()
        ]
