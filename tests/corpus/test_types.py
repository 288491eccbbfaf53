"""A Parquet column of any type may be kept or be an id; each row is read once, or rejected."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.corpus import list_objects, split
from corpuscore.corpus.sizes import sizes_of
from corpuscore.options import ReadOptions
from tests.corpus.reading import rows, whole

DAY = datetime.date(2026, 2, 3)
NOON = datetime.datetime(2026, 2, 3, 12, tzinfo=datetime.UTC)
VALUES: dict[str, tuple[pa.DataType, Any]] = {
    "bool": (pa.bool_(), True),
    "int8": (pa.int8(), -3),
    "uint64": (pa.uint64(), 2**64 - 1),
    "half float": (pa.float16(), 1.5),
    "double": (pa.float64(), float("inf")),
    "decimal": (pa.decimal256(50, 3), Decimal("1.500")),
    "date": (pa.date32(), DAY),
    "time": (pa.time64("us"), datetime.time(1, 2)),
    "timestamp": (pa.timestamp("us", "UTC"), NOON),
    "duration": (pa.duration("ms"), datetime.timedelta(seconds=3)),
    "string": (pa.string(), "a"),
    "large string": (pa.large_string(), "a"),
    "string view": (pa.string_view(), "a" * 20),
    "binary": (pa.binary(), b"a"),
    "binary view": (pa.binary_view(), b"a" * 20),
    "fixed binary": (pa.binary(3), b"abc"),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), "a"),
    "list": (pa.list_(pa.int32()), [1, None]),
    "large list": (pa.large_list(pa.string()), ["a", None]),
    "fixed list": (pa.list_(pa.int32(), 2), [1, 2]),
    "list of lists": (pa.list_(pa.list_(pa.string())), [["a"], [], None]),
    "list of dictionary": (pa.list_(pa.dictionary(pa.int8(), pa.string())), ["a", "a"]),
    "struct": (pa.struct({"a": pa.string(), "b": pa.list_(pa.int64())}), {"a": "b", "b": [1]}),
    "map": (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    "uuid": (pa.uuid(), b"0123456789abcdef"),
    "json": (pa.json_(), '{"a": 1}'),
    "null": (pa.null(), None),
}


@pytest.mark.parametrize("data_page_version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_a_column_of_any_type(tmp_path: Path, name: str, use_dictionary: bool, data_page_version: str) -> None:
    """As a kept column it holds what it held, and as an id it names the document; null stays null."""
    kind, value = VALUES[name]
    column = pa.array([value, None] * 3, kind)
    table = pa.table({"text": list("abcdef"), "x": column})
    path = tmp_path / "x.parquet"
    options = {"use_dictionary": use_dictionary, "data_page_version": data_page_version, "row_group_size": 2}
    pq.write_table(table, path, **options)
    (item,) = list_objects([str(path)])
    reading = ReadOptions(keep_columns=("x",))
    found = rows([whole(item)], reading)
    assert [row["text"] for row in found] == list("abcdef")
    assert [row["x"] is None for row in found] == [value is None, True] * 3
    assert len({str(row["x"]) for row in found[::2]}) == 1
    assert rows(split([item], 1, reading), reading) == found
    named = rows([whole(item)], ReadOptions(id_columns=("x",)))
    assert [row["reason"] for row in named] == ["null_id" if value is None else None, "null_id"] * 3


@pytest.mark.parametrize("name", VALUES)
def test_the_size_of_a_row(name: str) -> None:
    """Rows of a slice are as large as they were in the whole."""
    kind, value = VALUES[name]
    column = pa.array([value, None, value], kind)
    sizes = sizes_of(column)
    assert sizes.shape == (3,)
    assert sizes_of(column.slice(2)).tolist() == [sizes[0]] == [sizes[2]]
    assert min(sizes) >= 0


def test_the_size_of_nested_rows() -> None:
    """What lies in lists, maps, structs and dictionaries counts, each time that it is repeated."""
    words = pa.array([["aa", "bbb"], None, [], ["c" * 100] * 3])
    assert sizes_of(words).tolist() == [5 + 2 * 8, 0, 0, 300 + 3 * 8]
    assert sizes_of(words.slice(3)).tolist() == [324]
    coded = pa.DictionaryArray.from_arrays(pa.array([0, None, 0, 1]), ["a" * 50, "b"])
    assert sizes_of(coded).tolist() == [50, 0, 50, 1]
    assert sizes_of(pa.array([{"a": "bb", "c": [1]}])).tolist() == [2 + 8 + 8]
