"""Values arrive as they were written: against Arrow, Python's json and the uuid module, for kept columns and ids."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.corpus import CorpusObject, DocumentReader, list_objects
from corpuscore.corpus.jsonvalues import MISSING, Written, find
from corpuscore.corpus.written import written
from corpuscore.kinds import kept_type, type_named
from corpuscore.options import ReadOptions
from corpuscore.warehouse.tables import stored_type
from tests.corpus.reading import put, rows, whole
from tests.corpus.test_types import VALUES

KEPT = ReadOptions(keep_columns=("x",))
NAMED = ReadOptions(id_columns=("x",))


def parquet(folder: Path, column: pa.Array, **options: Any) -> CorpusObject:
    """An object with a text and this column x in each row."""
    table = pa.table({"text": [f"text {at}" for at in range(len(column))], "x": column})
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return put(folder, "x.parquet", sink.getvalue())


def kept(item: CorpusObject) -> list[Any]:
    """What is kept of x."""
    return [row["x"] for row in rows([whole(item)], KEPT)]


def ids(item: CorpusObject) -> list[str]:
    """The ids that x gives."""
    return [row["document_id"] for row in rows([whole(item)], NAMED)]


SPELLINGS = ["12.50", "1e3", "1E+2", "-0", "-0.0", "0.10", "1.0", "340282366920938463463374607431768211455"]
SPELLINGS += ["1e400", "9" * 400, "NaN", "-Infinity"]  # which RFC 8259 or 64 bits do not know


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("around", ['{"text":"a","x":%s}', '{"x" : %s , "text":"\\u00e9 \\"x\\": 1","y":{"x":9.5}}'])
def test_a_number_of_json_is_kept_as_it_is_written(tmp_path: Path, spelling: str, around: str) -> None:
    """Zeros at its end, exponents and any number of digits, whatever else the line holds; in an id, too."""
    item = put(tmp_path, "x.jsonl", (around % spelling).encode())
    assert (kept(item), ids(item)) == ([spelling], [spelling])


def test_objects_and_arrays_of_json_keep_their_numbers_and_escapes(tmp_path: Path) -> None:
    """They are the text of the line but for white space between values; the last of two equal keys counts."""
    line = rb'{"x": 1, "text": "a", "x": {"a": [1.50, 2e1 , "\u00e9 [ ,"], "b": -0.0, "b": 1.10}}'
    (value,) = kept(put(tmp_path, "x.jsonl", line))
    assert value == r'{"a":[1.50,2e1,"\u00e9 [ ,"],"b":-0.0,"b":1.10}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    line=st.dictionaries(st.sampled_from(["x", "y", 'x"', "é", "x\\", "a.b"]) | st.text(), JSON),
    ascii_only=st.booleans(),
)
def test_any_value_of_json_is_written_as_it_stands(line: dict[str, Any], ascii_only: bool) -> None:
    """For each key of any object: read back with Python's json, the string that is kept is the value itself."""
    text = json.dumps(line, ensure_ascii=ascii_only)
    try:
        body, parsed = text.encode(), orjson.loads(text)
    except (UnicodeEncodeError, orjson.JSONDecodeError):
        return  # half of a surrogate pair
    exact = json.loads(text, parse_float=Decimal)
    for key, value in exact.items():
        found = find(parsed, key)
        assert found is not MISSING
        text_kept = Written(key)(body, parsed, found)
        if isinstance(value, str) or value is None:
            assert text_kept == value
        else:
            assert text_kept is not None
            assert json.loads(text_kept, parse_float=Decimal) == value


def test_dates_beyond_64_bits_of_nanoseconds_stay_what_they_are(tmp_path: Path) -> None:
    """INT96, as Spark and Impala write it, and timestamps of seconds and milliseconds: 9999 is not 1816."""
    days = [dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), dt.datetime(2026, 2, 3, 4, 5, 6, 789_000), None]
    for kind, options in (("us", {"use_deprecated_int96_timestamps": True}), ("ms", {}), ("us", {})):
        item = parquet(tmp_path, pa.array(days, pa.timestamp(kind)), **options)
        assert kept(item) == days
        assert ids(item)[0].startswith("9999-12-31 00:00:00")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_and_zone_are_the_same_moment(tmp_path: Path, unit: str) -> None:
    """Kept in microseconds, those of a zone as the moment that they are."""
    moment = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
    for zone in ("UTC", "Europe/Berlin", "+05:30"):
        assert kept(parquet(tmp_path, pa.array([moment], pa.timestamp(unit, zone)))) == [moment]


def test_a_date_that_no_warehouse_holds_is_a_reject(tmp_path: Path) -> None:
    """Rather than another date; the others are scored."""
    for column in (
        pa.array([0, 2**62, -(2**62)], pa.timestamp("ms")),
        pa.array([0, 2**31 - 1, -(2**31)], pa.date32()),
        pa.array([0, 2**62, -(2**62)], pa.timestamp("us")).take([0, 2, 2]),
    ):
        found = rows([whole(parquet(tmp_path, column))], KEPT)
        assert [row["reason"] for row in found] == [None, "out_of_range", "out_of_range"]
        assert "the column 'x'" in found[1]["detail"]


def test_digits_below_a_microsecond_are_cut_with_a_word(tmp_path: Path) -> None:
    """No warehouse holds them; ids do."""
    item = parquet(tmp_path, pa.array([1_000, 1_001], pa.timestamp("ns")))
    with DocumentReader(whole(item), KEPT) as reader:
        found = [value for batch in reader for value in batch.column("x").to_pylist()]
    assert found == [dt.datetime(1970, 1, 1, 0, 0, 0, 1)] * 2
    assert reader.counts.oddities.found["cut_nanoseconds"].count == 1
    assert ids(item)[1] == "1970-01-01 00:00:00.000001001"


def test_uuids_are_canonical_text(tmp_path: Path) -> None:
    """As Python writes them, kept and as ids, null and in a slice."""
    values = [uuid.UUID(int=at * 0x1234567890ABCDEF1234567) for at in range(1, 6)]
    column = pa.array([values[0].bytes, *(value.bytes for value in values), None], pa.uuid())[1:]
    item = parquet(tmp_path, column, row_group_size=4)
    assert kept(item) == [*map(str, values), None]
    assert ids(item)[:5] == list(map(str, values))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.binary(min_size=7, max_size=7), min_size=1), st.lists(st.none() | st.binary()))
def test_bytes_are_ids_in_text_or_hexadecimal(fixed: list[bytes | None], free: list[bytes | None]) -> None:
    """Those of a fixed length are hexadecimal; others where they are no text. No id has control codes."""
    assert written(pa.array(fixed, pa.binary(7))).to_pylist() == [value and value.hex() for value in fixed]
    for value, text in zip(free, written(pa.array(free, pa.binary())).to_pylist(), strict=True):
        assert (value is None) == (text is None)
        if value is not None:
            assert bytes.fromhex(text) == value if text.encode() != value else not set(value) & set(range(9))


def test_decimals_keep_all_digits(tmp_path: Path) -> None:
    """Beyond 38 digits as text, without exponents; ids never have any."""
    small = [Decimal("0.00000000001"), Decimal("12.50000000000")]
    for kind in (pa.decimal128(30, 11), pa.decimal256(70, 11)):
        item = parquet(tmp_path, pa.array(small, kind))
        assert ids(item) == ["0.00000000001", "12.50000000000"]
        assert [str(value) for value in kept(item)] == (ids(item) if kind.bit_width > 128 else list(map(str, small)))


def test_durations_have_their_unit(tmp_path: Path) -> None:
    """ISO 8601, whatever they were counted in."""
    for unit, count in (("s", 3), ("ms", 3000), ("ns", 3 * 10**9)):
        assert kept(parquet(tmp_path, pa.array([count, -count], pa.duration(unit))))[0].rstrip("0S.") == "PT3"
    assert kept(parquet(tmp_path, pa.array([1500], pa.duration("ms")))) == ["PT1.500S"]


NESTED: list[tuple[pa.DataType, Any, Any]] = [
    (pa.list_(pa.decimal128(10, 2)), [Decimal("12.50"), None], [Decimal("12.50"), None]),
    (pa.list_(pa.float32()), [0.1, math.nan, -math.inf], [Decimal("0.1"), "NaN", "-Infinity"]),
    (pa.struct({"a": pa.uint64(), "b": pa.bool_()}), {"a": 2**64 - 1, "b": None}, {"a": 2**64 - 1, "b": None}),
    (pa.map_(pa.string(), pa.int8()), [("k", 1), ("l", None)], [["k", 1], ["l", None]]),
    (pa.list_(pa.timestamp("us")), [dt.datetime(9999, 12, 31)], ["9999-12-31T00:00:00.000000"]),
    (pa.list_(pa.binary(2)), [b"ab", b"\0\xff"], ["6162", "00ff"]),
    (pa.list_(pa.list_(pa.string()), 2), [["a"], None], [["a"], None]),
    (pa.list_(pa.struct({"m": pa.map_(pa.int8(), pa.list_(pa.date32()))})), [{"m": [(1, [dt.date(1, 1, 1)])]}, None],
     [{"m": [[1, ["0001-01-01"]]]}, None]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), NESTED)
def test_nested_values_are_json(tmp_path: Path, kind: pa.DataType, value: Any, expected: Any) -> None:
    """With all digits of their numbers; nulls inside and outside, in any row."""
    item = parquet(tmp_path, pa.array([None, value, value, None, value], kind)[1:])
    found = kept(item)
    assert found[2] is None
    assert [json.loads(text, parse_float=Decimal) for text in (found[0], found[1], found[3])] == [expected] * 3


def test_a_nested_value_that_cannot_be_written_is_a_reject(tmp_path: Path) -> None:
    """A string that is no UTF-8 in a list, or a date beyond writing: that document alone."""
    spoilt = pa.array([[b"a"], [b"\xff"], [b"c"]], pa.list_(pa.binary())).view(pa.list_(pa.string()))
    assert [row["reason"] for row in rows([whole(parquet(tmp_path, spoilt))], KEPT)] == [None, "invalid_utf8", None]
    far = pa.array([[1], [2**31 - 1], None], pa.list_(pa.int32())).view(pa.list_(pa.date32()))
    assert [row["reason"] for row in rows([whole(parquet(tmp_path, far))], KEPT)] == [None, "out_of_range", None]


def test_uuids_and_bytes_inside_of_others_are_text(tmp_path: Path) -> None:
    """As they are by themselves."""
    inner = [pa.array([b"0123456789abcdef", None], pa.uuid()), pa.array([b"\xff", b"text"])]
    item = parquet(tmp_path, pa.StructArray.from_arrays(inner, ["id", "raw"]))
    assert [json.loads(text) for text in kept(item)] == [
        {"id": "30313233-3435-3637-3839-616263646566", "raw": "ff"},
        {"id": None, "raw": "text"},
    ]


@pytest.mark.parametrize("depth", [20, 48])
def test_a_deeply_nested_column_of_parquet_is_read(tmp_path: Path, depth: int) -> None:
    """As deep as Arrow reads them."""
    kind, value = pa.int8(), 1
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]
    assert kept(parquet(tmp_path, pa.array([value], kind))) == ["[" * depth + "1" + "]" * depth]


@pytest.mark.parametrize("depth", [254, 255, 1000])
def test_json_is_kept_as_deep_as_others_read_it(tmp_path: Path, depth: int) -> None:
    """One level more is a reject with its reason; the other lines are scored."""
    deep = '{"text": "a", "x": ' + "[" * depth + "]" * depth + '}\n{"text": "b", "x": 1}\n'
    found = rows([whole(put(tmp_path, "x.jsonl", deep.encode()))], KEPT)
    assert [row["reason"] for row in found] == ["broken_json" if depth > 254 else None, None]
    assert depth <= 254 or "'x' is nested more than 254 deep" in found[0]["detail"]


def test_a_kept_type_is_what_tables_hold() -> None:
    """What a reader makes of any type is stored as it is."""
    for name, (kind, _) in VALUES.items():
        made = kept_type(kind)
        assert name == "null" or stored_type(made) == made, name
        assert type_named(str(made)) == made


def test_arrow_reads_back_what_a_part_holds(tmp_path: Path) -> None:
    """Each value of a type that tables have is the value that Arrow reads from the object."""
    path = tmp_path / "y.parquet"
    columns = {
        "i": pa.array([-(2**63), 2**63 - 1, None]),
        "u": pa.array([0, 2**64 - 1, None], pa.uint64()),
        "f": pa.array([5e-324, 1.7976931348623157e308, None]),
        "h": pa.array([65504, 6e-8, None], pa.float16()),
        "d": pa.array([Decimal("-12345678.90"), Decimal("0.00"), None], pa.decimal128(10, 2)),
        "t": pa.array([0, 86_399_999_999_000, None], pa.time64("ns")),
        "b": pa.array([b"\0\xff", b"", None]),
    }
    pq.write_table(pa.table({"text": ["a", "b", "c"], **columns}), path)
    (item,) = list_objects([str(path)])
    found = rows([whole(item)], ReadOptions(keep_columns=tuple(columns)))
    expected = pq.read_table(path)
    for name in columns:
        assert [row[name] for row in found] == expected.column(name).to_pylist(), name
