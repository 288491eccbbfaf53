"""Web archives: the plain-text records of WARC files, such as Common Crawl's WET files, as documents.

A document is a record of type `conversion`, or a `resource` of type text/plain. Its columns are its headers, by their
names in the standard: WARC-Target-URI, WARC-Date, WARC-Record-ID. Records of other types are none: pages as they were
fetched are HTML, of which no text is made here.

Source: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corpuscore.corpus.parsing import Document, judge
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions

_TEXT = "text/plain"
_PLAIN_KINDS = ("conversion", "resource")
_TAIL_BYTES = 64
_LOOKED_AT = 50  # records of an object's beginning, of which one should be a text


def warc_documents(uri: str, file: Any, reading: ReadOptions) -> Iterator[tuple[int, Document]]:
    """(position, document) in order; a position is where the record begins in the object as it is stored.

    Raises:
        CorpusError: The extra for web archives is not installed, or the object is no web archive.
    """
    limit = reading.max_document_bytes
    for archive, record in _records(uri, file):
        if not _is_text(record):
            continue
        body = record.content_stream().read(limit + 1)
        if record.length is None or len(body) < min(limit + 1, record.length):
            raise _broken(uri, "it ends inside a record")
        position = archive.get_record_offset()  # which goes to the end of the record
        headers = record.rec_headers
        ids = [headers.get_header(name) for name in reading.ids]
        kept = tuple(headers.get_header(column.path) for column in reading.kept)
        if None in ids:
            name = reading.ids[ids.index(None)]
            yield position, Document(None, None, "null_id", f"the record has no {name}", kept)
            continue
        yield position, _document(body, limit, "/".join(ids) if ids else None, kept)


def check_warc(uri: str, file: Any) -> None:
    """Look at the first records of an object.

    Raises:
        CorpusError: None of them is a text, or it is no web archive.
    """
    kinds = []
    for number, (_, record) in enumerate(_records(uri, file)):
        if _is_text(record):
            return
        kinds.append(record.rec_type)
        if number >= _LOOKED_AT:
            break
    raise CorpusError(
        f"{uri} holds no plain text, but records of type {', '.join(sorted(set(filter(None, kinds)))) or 'none'}",
        rule="a document is a record of type conversion, or a resource of type text/plain; no text is made of HTML",
        next_step="take WET files, which Common Crawl has beside each WARC file, or extract the texts first",
    )


def _records(uri: str, file: Any) -> Iterator[tuple[Any, Any]]:
    """The archive and each of its records; how these are compressed is found by their content."""
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise CorpusError(
            f"{uri} is a web archive",
            rule="web archives are read through warcio",
            next_step="pip install 'corpuscore[warc]', on the workers too",
        ) from None
    file.seek(0)
    end = 0
    try:
        records = ArchiveIterator(file)
        for record in records:
            yield records, record
            end = records.get_record_offset() + records.get_record_length()
    except (ArchiveLoadFailed, EOFError) as error:
        raise _broken(uri, error) from error
    file.seek(end)
    if file.read(_TAIL_BYTES).strip(b"\0\r\n"):
        raise _broken(uri, f"no whole record begins at byte {end}")


def _broken(uri: str, reason: object) -> CorpusError:
    return CorpusError(
        f"{uri} cannot be read: {' '.join(str(reason).split())[:300]}",
        rule="a web archive is a row of WARC records, each compressed by itself or not at all",
        next_step="fetch it again, or leave it out of the corpus",
    )


def _is_text(record: Any) -> bool:
    kind = (record.rec_headers.get_header("Content-Type") or _TEXT).partition(";")[0].strip().lower()
    return record.rec_type in _PLAIN_KINDS and kind == _TEXT


def _document(body: bytes, limit: int, document_id: str | None, kept: tuple[str | None, ...]) -> Document:
    if len(body) > limit:
        return Document(document_id, None, "too_large", f"the text has more than {limit} bytes", kept)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return Document(document_id, None, "invalid_utf8", f"byte {error.start} of the record: {error.reason}", kept)
    verdict = judge(text, limit)
    return (
        Document(document_id, text, None, None, kept)
        if verdict is None
        else Document(document_id, None, *verdict, kept)
    )
