"""However an object is cut, its partitions together hold what it holds, once, under the same ids."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpuscore.corpus import csvrecords, list_objects, split
from corpuscore.corpus.csvrecords import CsvRecords
from corpuscore.corpus.records import lines
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, ranges, rows, texts, whole

PIECES = [
    *(b"\n", b"\r\n", b"\n\n", b"\r", b" ", b"\t", b'"', b'""', b",", b"a", b"bc", b"# \n", b"\x00"),
    *(b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf", b'{"text": "x"}', b'{"text":', b'"text"', b"text"),
]
CONTENT = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
SHORT = ReadOptions(max_document_bytes=8)
EDGES = st.lists(st.integers(0, 120), max_size=6)
FEW = settings(max_examples=100, deadline=None)


@FEW
@given(CONTENT, EDGES)
def test_ranges_of_lines_are_the_whole(content: bytes, edges: list[int]) -> None:
    """JSON Lines cut at any bytes yields the rows of the object read whole."""
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.jsonl", content)
        expected = [{**row, "detail": None} for row in rows([whole(item)], SHORT)]  # which says line or byte
        assert [{**row, "detail": None} for row in rows(ranges(item, edges), SHORT)] == expected


@FEW
@given(CONTENT, EDGES)
@example(b'\xef\xbb\xbf\n"', [1])  # cut inside the byte order mark
@example(b"\xef\xbb\xbfa\n\nb", [1, 2, 3, 4])
def test_ranges_of_paragraphs_are_the_whole(content: bytes, edges: list[int]) -> None:
    """Plain text cut at any bytes yields the paragraphs of the object read whole."""
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.txt", content)
        assert rows(ranges(item, edges), SHORT) == rows([whole(item)], SHORT)


@FEW
@given(CONTENT, st.integers(1, 5))
@example(b'"a\n' * 50, 1)
@example(b'1,"a\nb"\n' * 50, 1)
def test_partitions_of_csv_are_the_whole(content: bytes, partition_rows: int) -> None:
    """CSV of any content, quotes and all, yields the same rows in partitions of any size."""
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.csv", b"id,text\n" + content + b"x" * 400)
        reading = ReadOptions(keep_columns=("id",))
        assert rows(split([item], partition_rows, reading), reading) == rows([whole(item)], reading)


@FEW
@given(CONTENT, EDGES)
def test_ranges_of_csv_are_the_whole(content: bytes, edges: list[int]) -> None:
    """CSV of any content, quotes and all, yields the same rows however it is cut below its header."""
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.csv", b"id,text\n" + content)
        cuts = [edge for edge in edges if edge > len("id,text\n")]
        assert rows(ranges(item, cuts), SHORT) == rows([whole(item)], SHORT)


@FEW
@given(CONTENT, EDGES, st.integers(1, 12))
@example(b'1,"a\nb,b\nc,c\n"\n', [12], 4)
def test_a_wrong_cut_of_csv_is_an_error(content: bytes, edges: list[int], telling: int) -> None:
    """Where text in quotes is taken for records, there are the right rows or an error, and never others."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(csvrecords, "TELLING_BYTES", telling):
        item = put(Path(folder), "x.csv", b"id,text\n" + content)
        parts = ranges(item, [edge for edge in edges if edge > len("id,text\n")])
        with suppress(CorpusError):
            assert rows(parts, SHORT) == rows([whole(item)], SHORT)


def _csv(count: int, text: str) -> bytes:
    """Rows without quotes, of which each tenth has a field too many."""
    rest = [",more" if number % 10 == 7 else "" for number in range(count)]
    return b"id,text\n" + b"".join(f"{number},{text} {number}{rest[number]}\n".encode() for number in range(count))


def test_csv_without_quotes_is_cut(tmp_path: Path) -> None:
    """Lines that say nothing of quotes are shared out all the same, each to one range."""
    item = put(tmp_path, "x.csv", _csv(20_000, "a few words of text"))
    parts = list(split([item], 5_000, ReadOptions()))
    found = [rows([part]) for part in parts]
    assert len(parts) == 4
    assert all(3_000 < len(share) < 7_000 for share in found)
    assert [row for share in found for row in share] == rows([whole(item)])


def test_a_field_over_several_ranges_is_one_document(tmp_path: Path) -> None:
    """Lines in quotes belong to the row that opened them, also where ranges were planned to end among them."""
    prose = "".join(f"line {number}, and{',' * (number % 5)} more\n" for number in range(20_000))
    item = put(tmp_path, "x.csv", f'id,text\n1,before\n2,"{prose}"\n3,after\n'.encode())
    found = texts(ranges(item, range(1_000, item.size_bytes, 150_000)))
    assert found == ["before", prose, "after"]


def test_a_field_that_looks_like_records_is_an_error(tmp_path: Path) -> None:
    """CSV inside of a field of CSV, long enough to be mistaken for it, stops the run instead of giving wrong rows."""
    inner = "".join(f"{number},x\n" for number in range(20_000))
    item = put(tmp_path, "x.csv", f'id,text\n1,"{inner}"\n2,after\n'.encode())
    first, second = ranges(item, [item.size_bytes // 3])
    assert len(texts([whole(item)])) == 2
    with pytest.raises(CorpusError, match=r"a quote that opens before byte \d+ .*more rows a partition"):
        rows([first])
    assert rows([second])


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.txt"])
def test_a_plan_reads_only_the_beginning_of_an_object(tmp_path: Path, name: str) -> None:
    """However large an object is, cutting it costs one bounded read."""
    beginning = {"x.csv": _csv(40_000, "text"), "x.jsonl": b'{"text": "a"}\n' * 40_000, "x.txt": b"text\n\n" * 80_000}
    item = put(tmp_path, name, beginning[name])
    with Path(tmp_path / name).open("r+b") as file:
        file.truncate(2**28)
    (item,) = list_objects([item.uri])
    before = _bytes_read()
    parts = list(split([item], 100_000, ReadOptions()))
    assert _bytes_read() - before < 2**24
    assert len(parts) > 10


def _bytes_read() -> int:
    """Bytes that this process has read from anywhere."""
    return int(Path("/proc/self/io").read_text().split()[1])


@settings(FEW, max_examples=25)
@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 100))
def test_partitions_of_parquet_are_the_whole(count: int, group_rows: int, partition_rows: int) -> None:
    """Parquet in partitions of any size yields all rows under the ids of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({"text": [f"text {number} " * 20 for number in range(count)], "n": range(count)})
        pq.write_table(table, Path(folder) / "x.parquet", row_group_size=group_rows)
        (item,) = list_objects([folder + "/x.parquet"])
        reading = ReadOptions(keep_columns=("n",))
        partitions = list(split([item], partition_rows, reading))
        found = rows(partitions, reading)
        assert found == rows([whole(item)], reading)
        assert [row["n"] for row in found] == [row["position"] for row in found] == list(range(count))
        if partitions and partitions[0].kind == "row_groups":
            assert sum(partition.rows or 0 for partition in partitions) == count


TABLES = st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=12)


@FEW
@given(TABLES, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_csv_reads_what_csv_writes(table: list[tuple[str, str]], line_end: str, quoting: Literal[0, 1]) -> None:
    """Whatever Python's csv module writes comes back, with quotes, commas and line breaks inside the fields."""
    table = [row for row in table if not any("\x00" in field or "\r" in field for field in row)]
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator=line_end, quoting=quoting)
    writer.writerows([("id", "text"), *table])
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.csv", sink.getvalue().encode("utf-8", "surrogatepass"))
        reading = ReadOptions(keep_columns=("id",), max_document_bytes=10**6)
        found = rows([whole(item)], reading)
        assert [row["id"] for row in found] == [row[0] for row in table]
        assert [row["text"] for row in found] == [row[1] if row[1].strip() else None for row in table]


@FEW
@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda text: text.strip()), max_size=20))
def test_json_lines_reads_what_json_writes(values: list[str]) -> None:
    """Every string comes back as it was, escaped or not, at the offset of its line."""
    values = [value.encode("utf-8", "replace").decode() for value in values]
    encoded = [json.dumps({"text": value}, ensure_ascii=len(value) % 2 == 0).encode() for value in values]
    with tempfile.TemporaryDirectory() as folder:
        found = rows([whole(put(Path(folder), "x.jsonl", b"\n".join(encoded)))])
    assert [row["text"] for row in found] == values
    assert [row["position"] for row in found] == [sum(map(len, encoded[:n])) + n for n in range(len(encoded))]


@FEW
@given(CONTENT, st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 50))
def test_records_do_not_depend_on_blocks(content: bytes, sizes: list[int], limit: int) -> None:
    """The same records come from blocks of any length, also where a block breaks off inside quotes."""
    blocks: list[bytes] = []
    at = 0
    while at < len(content):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(content[at : at + size])
        at += size
    if not content.startswith(b"\xef\xbb\xbf") or len(blocks[0]) >= 3:
        assert list(CsvRecords(blocks, 0, 10**9, limit)) == list(CsvRecords([content], 0, 10**9, limit))
    assert list(lines(blocks, 0, 10**9, limit)) == list(lines([content], 0, 10**9, limit))
