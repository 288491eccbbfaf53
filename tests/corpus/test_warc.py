"""Web archives: what warcio writes, as Common Crawl has it, becomes documents with its headers as columns."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from warcio.warcwriter import WARCWriter

from corpuscore.corpus import split
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, rows

TEXTS = ["Guten Tag, Welt", "two\n\nparagraphs", "", "日本語"]
READING = ReadOptions(id_columns=("WARC-Record-ID",), keep_columns=("WARC-Target-URI", "WARC-Date=fetched"))


def _archive(kind: str, gzip: bool, content_type: str = "text/plain", bodies: list[bytes] | None = None) -> bytes:
    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=gzip)
    writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "test"}))
    for number, body in enumerate(bodies or [text.encode() for text in TEXTS]):
        writer.write_record(
            writer.create_warc_record(
                f"http://host/{number}",
                kind,
                payload=io.BytesIO(body),
                length=len(body),
                warc_content_type=content_type,
                warc_headers_dict={"WARC-Record-ID": f"<urn:uuid:{number}>", "WARC-Date": "2026-01-31T00:00:00Z"},
            )
        )
    return sink.getvalue()


@pytest.mark.parametrize("name", ["x.warc.wet.gz", "x.wet", "x.warc.gz", "x.warc"])
@pytest.mark.parametrize("kind", ["conversion", "resource"])
def test_text_records_are_documents(tmp_path: Path, name: str, kind: str) -> None:
    """Each with its headers as id and kept columns, and where it begins as its position."""
    body = _archive(kind, name.endswith(".gz"))
    item = put(tmp_path, name, body)
    assert item.format == "warc"
    found = rows(split([item], 1, READING), READING)
    assert [row["text"] for row in found] == ["Guten Tag, Welt", "two\n\nparagraphs", None, "日本語"]
    assert [row["reason"] for row in found] == [None, None, "empty", None]
    assert [row["document_id"] for row in found] == [f"<urn:uuid:{number}>" for number in range(4)]
    assert [row["WARC-Target-URI"] for row in found] == [f"http://host/{number}" for number in range(4)]
    assert {row["fetched"] for row in found} == {"2026-01-31T00:00:00Z"}
    starts = b"\x1f\x8b" if name.endswith(".gz") else b"WARC/1"
    assert all(body[row["position"] :].startswith(starts) for row in found)
    assert len({row["position"] for row in found}) == 4


def test_odd_records_are_rejects(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, texts beyond the limit, and a record without the header that names it."""
    item = put(tmp_path, "x.wet.gz", _archive("conversion", True, bodies=[b"caf\xe9", b"x" * 100, b"fine"]))
    reading = ReadOptions(max_document_bytes=50)
    assert [row["reason"] for row in rows(split([item], 1, reading), reading)] == ["invalid_utf8", "too_large", None]
    nameless = ReadOptions(id_columns=("WARC-Absent",))
    assert [row["reason"] for row in rows(split([item], 1, nameless), nameless)] == ["null_id"] * 3


def test_an_archive_of_pages_is_refused_at_plan(tmp_path: Path) -> None:
    """HTML is no text; Common Crawl has the texts beside it."""
    item = put(tmp_path, "x.warc.gz", _archive("resource", True, "text/html"))
    with pytest.raises(CorpusError, match=r"holds no plain text, but records of type resource, warcinfo.*WET files"):
        list(split([item], 1, ReadOptions()))


@pytest.mark.parametrize("gzip", [True, False])
def test_an_archive_that_was_cut_short_is_an_error(tmp_path: Path, gzip: bool) -> None:
    """Wherever a text is lost: in a header, in the text itself; named, with what to do."""
    text = "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(8))  # which is not compressed much
    body = _archive("conversion", gzip, bodies=[text.encode()])
    edge = body.index(b"\x1f\x8b", 1) if gzip else body.index(b"WARC/1", 1)
    for end in range(edge + 20, len(body) - 20, 37):
        item = put(tmp_path, "x.warc.gz" if gzip else "x.warc", body[:end])
        with pytest.raises(CorpusError, match=r"x.warc(.gz)? (cannot be read|holds no plain text)"):
            rows(split([item], 1, ReadOptions()))


def test_what_is_no_archive_is_an_error(tmp_path: Path) -> None:
    """Whatever its name says."""
    item = put(tmp_path, "x.warc.gz", b"no archive")
    with pytest.raises(CorpusError, match=r"x.warc.gz (cannot be read|holds no plain text)"):
        rows(split([item], 1, ReadOptions()))
