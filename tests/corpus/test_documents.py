"""What concerns one document becomes a reject with its reason, and the rest goes on."""

from __future__ import annotations

import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.corpus import CorpusObject, DocumentReader, list_objects
from corpuscore.options import ReadOptions
from corpuscore.records import DOCUMENT_FIELDS
from tests.corpus.reading import put, ranges, reasons, rows, texts, whole


def _compress(body: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(body[: len(body) // 2]) + gzip.compress(body[len(body) // 2 :])  # two members
    return pa.compress(body, codec="zstd", asbytes=True) if suffix == ".zst" else body


def _parquet(folder: Path, table: pa.Table, **options: object) -> CorpusObject:
    pq.write_table(table, folder / "x.parquet", **options)
    (item,) = list_objects([str(folder / "x.parquet")])
    return item


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_reads_line_formats(tmp_path: Path, suffix: str, line_end: str) -> None:
    """JSON Lines, CSV and text, plain or compressed, with a byte-order mark, any line end and none at the last line."""
    contents = {
        "x.jsonl": '{"text": "één"}|{"text": "two\\nlines"}||{"text": "three"}',
        "x.csv": 'id,text|1,één|2,"two\nlines"||3,three',
        "x.txt": "één|| |two\nlines|||three",
    }
    for name, content in contents.items():
        body = b"\xef\xbb\xbf" + content.replace("|", line_end).encode()
        item = put(tmp_path, name + suffix, _compress(body, suffix))
        assert texts([whole(item)]) == ["één", "two\nlines", "three"]
        offsets = [row["position"] for row in rows([whole(item)])]
        assert offsets == sorted(offsets)
        assert rows([whole(item)])[1]["document_id"] == f"{item.uri}#{offsets[1]}"


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.txt", "x.jsonl.gz"])
def test_an_empty_object_has_no_documents(tmp_path: Path, name: str) -> None:
    """Nothing in, nothing out, no error."""
    assert rows([whole(put(tmp_path, name, gzip.compress(b"") if name.endswith("gz") else b""))]) == []


def test_batches_are_streams_of_the_schema(tmp_path: Path) -> None:
    """Batches have the document fields, then the kept columns, and at most the rows asked for."""
    item = put(tmp_path, "x.jsonl", b'{"text": "a", "n": 1, "deep": {"b": [2]}}\n' * 10)
    with DocumentReader(whole(item), ReadOptions(keep_columns=("n", "deep")), batch_rows=4) as reader:
        assert reader.kept_schema == pa.schema([("n", pa.string()), ("deep", pa.string())])
        batches = list(reader)
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    assert batches[0].schema == pa.schema([*DOCUMENT_FIELDS, *reader.kept_schema])
    assert batches[0].to_pylist()[0] | {"document_id": ""} == {
        "document_id": "", "position": 0, "text": "a", "reason": None, "detail": None, "n": "1", "deep": '{"b":[2]}'
    }  # fmt: skip


def test_json_lines_rejects(tmp_path: Path) -> None:
    """Each way in which a JSON line can be no document has its reason, and a broken one its line number."""
    lines = [
        (b'{"id": 1, "text": "fine"}', None),
        (b'{"id": 2, "text": "broken', "broken_json"),
        (b'{"id": 3, "text": "\xff"}', "invalid_utf8"),
        (b"[1, 2]", "not_an_object"),
        (b'{"id": 4}', "missing_text"),
        (b'{"id": 5, "text": 7}', "missing_text"),
        (b'{"id": 6, "text": null}', "null"),
        (b'{"id": 7, "text": ""}', "empty"),
        (b'{"id": 8, "text": " \\n\\u2003"}', "whitespace"),
        (b'{"id": null, "text": "x"}', "null_id"),
        (b'{"text": "x"}', "null_id"),
        (b'{"id": 9, "text": "' + b"x" * 101 + b'"}', "too_large"),
        (b'{"id": 10, "text": "fine too"}', None),
    ]
    item = put(tmp_path, "x.jsonl", b"\n".join(line for line, _ in lines))
    reading = ReadOptions(id_columns=("id",), max_document_bytes=100)
    found = rows([whole(item)], reading)
    assert [row["reason"] for row in found] == [reason for _, reason in lines]
    assert all((row["text"] is None) == (row["reason"] is not None) == (row["detail"] is not None) for row in found)
    assert found[1]["detail"].startswith("line 2: ")
    assert found[1]["document_id"] == f"{item.uri}#{found[1]['position']}"
    assert [row["document_id"] for row in found if row["reason"] in {None, "null", "empty"}] == ["1", "6", "7", "10"]
    later = rows(ranges(item, [found[1]["position"]]), reading)
    assert later[1]["detail"].startswith(f"byte {found[1]['position']}: ")


LONG = ["123456789012345678901", "123456789012345678902", "-9223372036854775809", "18446744073709551616", "9" * 300]


def test_long_integers_keep_their_digits(tmp_path: Path) -> None:
    """An integer beyond 64 bits is an id of its own in every format, and a kept column holds it as it is written."""
    reading = ReadOptions(id_columns=("id",), keep_columns=("id",))
    lines = {
        "x.jsonl": "".join(f'{{"id": {number}, "text": "a"}}\n' for number in LONG),
        "x.csv": "id,text\n" + "".join(f"{number},a\n" for number in LONG),
    }
    for name, body in lines.items():
        found = rows([whole(put(tmp_path, name, body.encode()))], reading)
        assert [(row["document_id"], row["id"]) for row in found] == [(number, number) for number in LONG]
    numbers = [Decimal(number) for number in LONG[:4]]
    for kind in (pa.decimal128(38, 0), pa.decimal256(76, 0)):
        table = pa.table({"id": pa.array(numbers, kind), "text": ["a"] * 4})
        assert [row["document_id"] for row in rows([whole(_parquet(tmp_path, table))], reading)] == LONG[:4]


def test_numbers_in_json_are_kept_as_they_are(tmp_path: Path) -> None:
    """Long ones as they are written, also inside of other values; the text of the line is what it was."""
    line = b'{"id": [1.50, {"a": -123456789012345678901.25}], "n": 1.5, "text": "a 1234567890123456789012"}\n'
    reading = ReadOptions(id_columns=("id",), keep_columns=("n",))
    (row,) = rows([whole(put(tmp_path, "x.jsonl", line))], reading)
    assert row["document_id"] == '[1.50,{"a":-123456789012345678901.25}]'
    assert (row["n"], row["text"]) == ("1.5", "a 1234567890123456789012")


@pytest.mark.parametrize("inside", ["", "1234567890123456789012"])
def test_values_that_are_too_deep_are_rejects(tmp_path: Path, inside: str) -> None:
    """A kept column that is nested deeper than can be written stops nobody else's line."""
    deep = "[" * 1000 + inside + "]" * 1000
    item = put(tmp_path, "x.jsonl", f'{{"text": "a", "k": {deep}}}\n{{"text": "b", "k": 1}}\n'.encode())
    assert reasons([whole(item)], ReadOptions(keep_columns=("k",))) == ["broken_json", None]


def test_csv_rejects(tmp_path: Path) -> None:
    """A row with other fields than the header, bad bytes and blank texts are rejects; the kept columns stay."""
    body = b'id,text,tag\n1,fine,a\n2,"one, field",b\n3,few\n4,to,o,many\n5,\xff,c\n6,,d\n7,"  ",e\n8,5" pipe,f\n'
    found = rows([whole(put(tmp_path, "x.csv", body))], ReadOptions(id_columns=("id",), keep_columns=("tag",)))
    assert [row["reason"] for row in found] == [
        None, None, "csv_columns", "csv_columns", "invalid_utf8", "empty", "whitespace", None
    ]  # fmt: skip
    assert [row["text"] for row in found if row["text"]] == ["fine", "one, field", '5" pipe']
    assert [row["tag"] for row in found] == ["a", "b", None, None, None, "d", "e", "f"]


def test_parquet_rejects(tmp_path: Path) -> None:
    """Null, empty, blank, over-long and badly encoded texts and null ids are rejects; kept columns keep their types."""
    raw = [b"fine", None, b"", b" \t\n", b"x" * 101, b"\xff", b"fine", "é\u2003".encode()]
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, 4, 5, 6, None, 8]),
            "text": pa.array(raw, pa.binary()),
            "when": [datetime.date(2026, 1, day) for day in range(1, 9)],
            "tag": pa.array(list("abababab")).dictionary_encode(),
            "deep": [{"a": [index]} for index in range(8)],
        }
    )
    reading = ReadOptions(id_columns=("id",), keep_columns=("when", "tag", "deep"), max_document_bytes=100)
    item = _parquet(tmp_path, table)
    found = rows([whole(item)], reading)
    assert [row["reason"] for row in found] == [
        None, "null", "empty", "whitespace", "too_large", "invalid_utf8", "null_id", None
    ]  # fmt: skip
    assert [row["document_id"] for row in found] == ["1", "2", "3", "4", "5", "6", f"{item.uri}#6", "8"]
    assert all((row["text"] is None) == (row["reason"] is not None) for row in found)
    assert found[7]["when"] == datetime.date(2026, 1, 8)
    assert found[7]["tag"] == "b"
    assert json.loads(found[7]["deep"]) == {"a": [7]}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary()]
)
def test_parquet_reads_every_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    """A text, id or kept column may be stored in any of Arrow's string types."""
    values = pa.array(["a", "b", None]).cast(kind)
    item = _parquet(tmp_path, pa.table({"text": values, "id": pa.array(["x", "y", "z"]).cast(kind)}))
    found = rows([whole(item)], ReadOptions(id_columns=("id",), keep_columns=("id",)))
    assert [row["text"] for row in found] == ["a", "b", None]
    assert [row["document_id"] for row in found] == ["x", "y", "z"]


def test_parquet_joins_ids(tmp_path: Path) -> None:
    """Several id columns make one id, joined with a slash, numbers included."""
    item = _parquet(tmp_path, pa.table({"book": ["a", "b"], "n": [1, 20], "text": ["x", "y"]}))
    found = rows([whole(item)], ReadOptions(id_columns=("book", "n")))
    assert [row["document_id"] for row in found] == ["a/1", "b/20"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.txt"])
def test_a_huge_line_is_a_reject_that_nobody_holds(tmp_path: Path, name: str) -> None:
    """A 60 MB document is rejected with memory near the limit of 1 MB, and the documents around it are read."""
    import tracemalloc

    head, tail = {
        "x.jsonl": (b'{"text": "before"}\n{"text": "', b'"}\n{"text": "after"}\n'),
        "x.csv": (b'id,text\n1,before\n2,"', b'"\n3,after\n'),
        "x.txt": (b"before\n\n", b"\n\nafter\n"),
    }[name]
    item = put(tmp_path, name, head + (b"long " * 4000 + b"\n" * (name == "x.csv")) * 3000 + tail)
    tracemalloc.start()
    found = rows([whole(item)], ReadOptions(max_document_bytes=2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row["reason"] for row in found] == [None, "too_large", None]
    assert [row["text"] for row in found] == ["before", None, "after"]
    assert peak < 24 * 2**20


def test_batches_of_long_documents_are_small(tmp_path: Path) -> None:
    """Documents of 5 MB don't pile up a thousand to a batch."""
    line = json.dumps({"text": "long " * 10**6}).encode() + b"\n"
    item = put(tmp_path, "x.jsonl", line * 16)
    _parquet(tmp_path, pa.table({"text": [f"{number}" + "long " * 10**6 for number in range(16)]}), compression="none")
    for uri in (item.uri, str(tmp_path / "x.parquet")):
        (found,) = list_objects([uri])
        with DocumentReader(whole(found), ReadOptions()) as reader:
            assert max(batch.nbytes for batch in reader) < 48 * 2**20


def test_text_is_read_by_paragraphs(tmp_path: Path) -> None:
    """A paragraph is a run of lines between blank ones; blank means white space only."""
    item = put(tmp_path, "x.txt", b"\n  \none\nline\n\t\ntwo\n\n\nthree\n\n")
    assert texts([whole(item)]) == ["one\nline", "two", "three"]
    assert reasons([whole(put(tmp_path, "y.txt", b"good\n\nbad \xff\n\ngood"))]) == [None, "invalid_utf8", None]
