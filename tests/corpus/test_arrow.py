"""Arrow IPC and Feather: the same documents as in Arrow's own table, from files and streams, cut or whole."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

from corpuscore.corpus import split
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, reasons, rows, texts, whole

ROWS = 1000
TABLE = pa.table(
    {
        "text": [f"text {number} é" if number % 7 else None for number in range(ROWS)],
        "id": pa.array(range(ROWS), pa.int32()),
        "lang": pa.array(["en", "de"] * (ROWS // 2)).dictionary_encode(),
        "unread": ["x" * 50] * ROWS,
    }
)


def _written(table: pa.Table, kind: str, compression: str | None = None, batch_rows: int = 100) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    made = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with made(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return sink.getvalue()


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.ipc"])
@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_rows_are_those_of_the_table(tmp_path: Path, name: str, kind: str, compression: str | None) -> None:
    """Texts, ids and kept columns as Arrow has them; positions count rows."""
    item = put(tmp_path, name, _written(TABLE, kind, compression))
    assert item.format == "arrow"
    reading = ReadOptions(id_columns=("id",), keep_columns=("lang",))
    found = rows(split([item], 10_000, reading), reading, batch_rows=64)
    assert [row["text"] for row in found] == TABLE["text"].to_pylist()
    assert [row["document_id"] for row in found] == [str(number) for number in range(ROWS)]
    assert [row["lang"] for row in found] == TABLE["lang"].to_pylist()
    assert [row["position"] for row in found] == list(range(ROWS))
    assert {row["reason"] for row in found if row["text"] is None} == {"null"}


def test_a_file_is_cut_between_record_batches(tmp_path: Path) -> None:
    """The same documents in any cut; the plan knows how many each range has. A stream is one partition."""
    item = put(tmp_path, "x.arrow", _written(TABLE, "file"))
    partitions = list(split([item], 250, ReadOptions()))
    assert [(part.kind, part.start, part.stop, part.rows) for part in partitions] == [
        ("row_groups", 0, 3, 300),
        ("row_groups", 3, 6, 300),
        ("row_groups", 6, 9, 300),
        ("row_groups", 9, 10, 100),
    ]
    assert rows(partitions) == rows([whole(item)])
    stream = put(tmp_path, "y.arrow", _written(TABLE, "stream"))
    (one,) = split([stream], 250, ReadOptions())
    assert (one.kind, texts([one])) == ("whole", TABLE["text"].to_pylist())


def test_feather_files_are_read(tmp_path: Path) -> None:
    """As pyarrow and pandas write them by default; of the first version it is said what to do."""
    pyarrow.feather.write_feather(TABLE, tmp_path / "x.feather")
    item = put(tmp_path, "x.feather", (tmp_path / "x.feather").read_bytes())
    assert texts(split([item], 10_000, ReadOptions())) == TABLE["text"].to_pylist()
    old = put(tmp_path, "old.feather", b"FEA1" + b"\0" * 100)
    with pytest.raises(CorpusError, match=r"Feather of version 1.*Next: write it again"):
        texts(split([old], 10_000, ReadOptions()))


def test_kinds_of_strings_are_texts(tmp_path: Path) -> None:
    """Large strings, views, bytes and dictionaries; nested values are kept as JSON."""
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"text": pa.array(["a", "bé"]).cast(kind), "more": [{"x": [1]}, {"x": None}]})
        item = put(tmp_path, "x.arrow", _written(table, "file"))
        reading = ReadOptions(keep_columns=("more",))
        found = rows(split([item], 10, reading), reading)
        assert [row["text"] for row in found] == ["a", "bé"]
        assert [row["more"] for row in found] == ['{"x":[1]}', '{"x":null}']


def test_bad_bytes_are_rejects_and_lies_are_errors(tmp_path: Path) -> None:
    """A string that is no UTF-8 costs itself; offsets that lead out of the data, and files cut short, are named."""
    bad = pa.array([b"good", b"b\xff"]).view(pa.string())
    item = put(tmp_path, "x.arrow", _written(pa.table({"text": bad}), "file"))
    assert reasons(split([item], 10, ReadOptions())) == [None, "invalid_utf8"]
    body = _written(pa.table({"text": TABLE["text"]}), "file")
    for number, spoilt in enumerate((_lying(), body[: len(body) // 2], b"ARROW1", b"")):
        item = put(tmp_path, f"{number}.arrow", spoilt)
        with pytest.raises(CorpusError, match=rf"{number}.arrow cannot be read"):
            rows(split([item], 10, ReadOptions()))


def test_a_buffer_that_announces_too_much_is_an_error(tmp_path: Path) -> None:
    """Compressed buffers say how large they will be; what no memory holds is named before it is taken."""
    body = _written(pa.table({"text": ["x" * 1000]}), "file", "zstd")
    before, _, behind = body.rpartition((1000).to_bytes(8, "little"))
    item = put(tmp_path, "x.arrow", before + (2**60).to_bytes(8, "little") + behind)
    with pytest.raises(CorpusError, match="takes more memory than there is"):
        rows(split([item], 10, ReadOptions()))


def _lying() -> bytes:
    """A file whose last string ends far behind its data; Arrow itself takes offsets as they are."""
    body = _written(pa.table({"text": ["good", "long"]}), "file")
    right, wrong = (b"".join(at.to_bytes(4, "little") for at in (0, 4, end)) for end in (8, 2**30))
    assert body.count(right) == 1
    return body.replace(right, wrong)


def test_an_arrow_file_without_rows_has_no_documents(tmp_path: Path) -> None:
    """Neither with a record batch of none, nor without any."""
    for number, table in enumerate((TABLE.slice(0, 0), TABLE.schema.empty_table())):
        item = put(tmp_path, f"{number}.arrow", _written(table, "file"))
        assert texts(split([item], 10, ReadOptions())) == []
