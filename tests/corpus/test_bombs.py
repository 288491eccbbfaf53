"""Whatever an object says of itself, reading it takes memory within bounds, and ends in rejects or one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.corpus import bombs
from tests.corpus.bombs import GIB, MIB
from tests.corpus.measured import measured

PEAK_MIB = 450  # a page of 128 MiB and what is decoded of it, with what Arrow takes meanwhile
SECONDS = 240  # on a machine that is busy with much else; alone, none takes ten

Write = Callable[[Path], Path]


def repeated(count: int, text: str) -> pa.Array:
    """A text so many times, in the memory of one."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [text])


def texts(count: int, text: str, *, once: bool = True) -> Callable[[], pa.Table]:
    """A table of the same text, which lies in memory once, or as often as it stands there."""
    return lambda: pa.table({"text": repeated(count, text) if once else [text] * count})


def skewed() -> pa.Table:
    """Many nulls, and then 20 texts of 16 MB: a row takes a kilobyte on the average."""
    return pa.table({"text": pa.concat_arrays([pa.nulls(3 * 10**5, pa.string()), pa.array(["a" * 16 * MIB] * 20)])})


def in_a_row(values: Callable[[], pa.Array]) -> Callable[[], pa.Table]:
    """One document that keeps a list of these values."""

    def make() -> pa.Table:
        kept = values()
        return pa.table({"text": ["a"], "kept": pa.ListArray.from_arrays(pa.array([0, len(kept)], pa.int32()), kept)})

    return make


SHORT = {"max_document_bytes": MIB}
KEPT = {"keep_columns": ["kept"]}
REPEATED = {"use_dictionary": True, "dictionary_pagesize_limit": 2 * GIB - 1}
ROWS: dict[str, tuple[Write, dict[str, Any], dict[str | None, int]]] = {
    "one text of 8 MB for each of a thousand rows": (
        bombs.parquet(texts(1000, "a" * 8 * MIB), **REPEATED), {}, {None: 1000}
    ),
    "one text of 15 MB for each of a hundred rows": (
        bombs.parquet(texts(100, "a" * 15 * MIB), **REPEATED), {}, {"too_large": 100}
    ),
    "one text of 40 MB for each of fifty rows": (
        bombs.parquet(texts(50, "a" * 40 * MIB), **REPEATED), {}, {"too_large": 50}
    ),
    "a text of 100 MB": (
        bombs.parquet(texts(1, "a" * 100 * MIB, once=False), use_dictionary=False), {}, {"too_large": 1}
    ),
    "a text of 8 MB that each row repeats as a prefix": (
        bombs.parquet(
            texts(60, "a" * 8 * MIB, once=False), use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}
        ), {}, {None: 60}
    ),
    "large texts among many nulls": (
        bombs.parquet(skewed, use_dictionary=False, data_page_size=1, write_batch_size=1),
        {}, {"null": 3 * 10**5, "too_large": 20},
    ),
    "a kept list of seven million nulls": (
        bombs.parquet(in_a_row(lambda: pa.nulls(7 * 10**6, pa.int64()))), KEPT, {"too_large": 1}
    ),
    "a kept list of one long string": (
        bombs.parquet(in_a_row(lambda: repeated(5000, "a" * MIB)), **REPEATED), KEPT, {"too_large": 1}
    ),
    "ten thousand columns": (
        bombs.parquet(lambda: pa.table({**{f"c{i}": [i] for i in range(10_000)}, "text": ["a"]})), {}, {None: 1}
    ),
    "row groups of one row": (bombs.parquet(texts(2_000, "a"), row_group_size=1), {}, {None: 2_000}),
    "many gzip members": (bombs.many_members, {}, {None: 10_000}),
    "a gzip line of 1 GB": (
        bombs.gzip_of("x.jsonl.gz", b'{"text": "', b"a", b'"}\n{"text": "b"}\n', GIB), {}, {"too_large": 1, None: 1}
    ),
    "a gzip text of 256 MB of zeros": (bombs.gzip_of("x.txt.gz", b"", b"\0", b"", GIB // 4), {}, {"too_large": 1}),
    "a zstd line of 256 MB": (
        bombs.zstd_of("x.jsonl.zst", b'{"text": "', b"a", b'"}\n{"text": "b"}\n', GIB // 4),
        {}, {"too_large": 1, None: 1},
    ),
    "a zstd window of 2 GB that little is written to": (bombs.wide_window(31), {}, {None: 1}),
    "kept values of 1 MB beside small texts": (
        bombs.gzip_of("x.jsonl.gz", b"", b'{"text": "a", "kept": "' + b"a" * (MIB - 26) + b'"}\n', b"", GIB // 4),
        KEPT, {None: 256},
    ),
    "a CSV line of 256 MB": (
        bombs.plain("x.csv", lambda: b"id,text\n1,a\n2,", GIB // 4), {}, {None: 1, "too_large": 1}
    ),
    "a quote that is never closed": (
        bombs.plain("x.csv", lambda: b'id,text\n1,a\n2,"' + b"b\n" * 3 * MIB), SHORT, {None: 1, "too_large": 1}
    ),
    "CSV rows of nothing but commas": (
        bombs.plain("x.csv", lambda: b"id,text\n" + (b"," * 20 * MIB + b"\n") * 3), {}, {"csv_columns": 3}
    ),
    "CSV rows of nothing but fields in quotes": (
        bombs.plain("x.csv", lambda: b"id,text\n" + b'"",' * MIB + b"\n"), {}, {"csv_columns": 1}
    ),
    "CSV of ten thousand columns": (
        bombs.plain("x.csv", lambda: b"text," + b",".join(b"c%d" % i for i in range(9_999)) + b"\n"
                    + (b"a" + b"," * 9_999 + b"\n") * 100), {}, {None: 100}
    ),
    "JSON a hundred thousand deep": (
        bombs.plain("x.jsonl", lambda: b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"text": "a"}\n'),
        {}, {"broken_json": 1, None: 1},
    ),
    "JSON of a million keys": (
        bombs.plain("x.jsonl", lambda: json.dumps({**{f"k{i}": i for i in range(999_000)}, "text": "a"}).encode()),
        {}, {None: 1},
    ),
    "JSON of more values than a line may have": (
        bombs.plain("x.jsonl", lambda: b'{"text": "a", "b": [' + b"{}," * 2 * MIB + b"0]}\n"), {}, {"too_large": 1}
    ),
    "JSON of a text of nothing but commas": (
        bombs.plain("x.jsonl", lambda: b'{"text": "' + b"," * 8 * MIB + b'"}\n'), {}, {None: 1}
    ),
    "JSON of a number of ten million digits": (
        bombs.plain("x.jsonl", lambda: b'{"text": "a", "kept": ' + b"9" * 10**7 + b"}\n"), KEPT, {"broken_json": 1}
    ),
    "text of lines of a letter": (bombs.plain("x.txt", lambda: b"a\n" * MIB), SHORT, {"too_large": 1}),
    "text without a line end": (bombs.plain("x.txt", lambda: b"a", GIB // 4), {}, {"too_large": 1}),
}  # fmt: skip

ERRORS: dict[str, tuple[Write, str]] = {
    "a page of 256 MB": (
        bombs.parquet(texts(32, "a" * 8 * MIB, once=False), use_dictionary=False), "a page of 268435"
    ),
    "a page that says it has 2 GB": (bombs.plain("x.parquet", lambda: bombs.with_page_size(2**31 - 1)), "a page of"),
    "statistics of levels that the schema lacks": (
        bombs.plain("x.parquet", bombs.with_other_levels), "histogram size mismatch"
    ),
    "a name that is no UTF-8": (bombs.plain("x.parquet", bombs.with_another_name), "can't decode byte 0x9b"),
    "a schema that is too deep": (bombs.plain("x.parquet", bombs.deep_schema), "too deeply nested"),
    "half a million column chunks": (
        bombs.plain("x.parquet", lambda: bombs.chunks_of_nothing(500_000)), "its footer lists 500003 columns"
    ),
    "three hundred thousand columns": (
        bombs.plain("x.parquet", lambda: bombs.columns_of_nothing(300_000)), "its footer lists 300001 columns"
    ),
    "a footer of a gigabyte": (
        bombs.plain("x.parquet", lambda: b"PAR1" + GIB.to_bytes(4, "little") + b"PAR1"), "its footer has 1073741824"
    ),
    "a zstd window of 4 GB": (bombs.wide_window(32), "too much memory"),
    "CSV of a million columns": (
        bombs.plain("x.csv", lambda: b"text," + b",".join(b"c%d" % i for i in range(10**6)) + b"\n" + b"a\n"),
        "the header line",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_bomb_is_read_in_bounded_memory(tmp_path: Path, name: str) -> None:
    """Its documents are read or rejected, one by one, and memory stays within what is stated."""
    write, reading, reasons = ROWS[name]
    found = measured(write(tmp_path), **reading)
    assert (found.error, found.reasons) == ("", reasons)
    assert found.peak_mib < PEAK_MIB
    assert found.seconds < SECONDS


@pytest.mark.parametrize("name", ERRORS)
def test_a_bomb_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    """What would take more than may be is refused as a whole, before memory is taken, and the limit is named."""
    write, message = ERRORS[name]
    found = measured(write(tmp_path), **(KEPT if "levels" in name else {}))
    assert message in found.error
    assert "Next: " in found.error
    assert found.peak_mib < PEAK_MIB
    assert found.seconds < SECONDS
