"""What is fuzzed: each target takes any bytes, and lets through nothing but errors of our own tree.

A target that returns has kept its promises: rows are texts or rejects, each once however the object is cut.
"""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.corpus import CorpusObject, DocumentReader, list_objects, split
from corpuscore.errors import CorpuscoreError, CorpusError
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.options import ReadOptions
from corpuscore.receipts import read_receipt, read_receipts
from corpuscore.records import Format, Partition, Receipt, ScorerInfo, part_key, receipt_key
from corpuscore.rundocuments import checked_of, document_of, facts_of
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.storage import Store, read_document, sealed
from tests.fuzz.messages import messages, read_message

Rows = list[dict[str, Any]]

_WINDOW = 48  # positions of the tiny model


@dataclass(frozen=True)
class Target:
    """Something to fuzz.

    Attributes:
        run: Takes any bytes.
        seeds: Makes valid inputs to start from.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@contextmanager
def _object(name: str, body: bytes) -> Iterator[CorpusObject]:
    path = _folder() / name
    path.write_bytes(body)
    (found,) = list_objects([str(path)])
    yield found


@functools.cache
def _folder() -> Path:
    """A folder of this process, gone with it."""
    made = tempfile.TemporaryDirectory(prefix="corpuscore-fuzz-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _rows(partition: Partition, reading: ReadOptions) -> Rows:
    found: Rows = []
    with DocumentReader(partition, reading, batch_rows=64) as reader:
        for batch in reader:
            batch.validate(full=True)
            found += batch.to_pylist()
    for row in found:
        assert (row["text"] is None) == (row["reason"] is not None), row
    return [{**row, "detail": None} for row in found]  # which may say line or byte


def _partition(item: CorpusObject, kind: Any = "whole", start: int = 0, stop: int = 0) -> Partition:
    return Partition(item.uri, item.etag, item.size_bytes, item.format, kind, start, stop)


def _read(name: str, data: bytes, reading: ReadOptions) -> None:
    """Read an object whole, and cut where its first byte says."""
    with _object(name, data) as item, suppress(CorpuscoreError):
        partitions = list(split([item], 10, reading))
        expected = _rows(_partition(item), reading)
        if partitions and partitions[0].kind == "row_groups":
            assert [row for part in partitions for row in _rows(part, reading)] == expected
        if item.format in ("jsonl", "text", "csv") and item.size_bytes and not name.endswith(".gz"):
            _check_cuts(item, reading, expected)


def _check_cuts(item: CorpusObject, reading: ReadOptions, expected: Rows) -> None:
    step = 1 + item.size_bytes // 7
    first = _header_end(item) if item.format == "csv" else 1
    edges = [0, *range(max(first, step), item.size_bytes, step), item.size_bytes]
    parts = [_partition(item, "bytes", start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
    try:
        found = [row for part in parts for row in _rows(part, reading)]
    except CorpusError:
        assert item.format == "csv"  # which may have to say that it cannot be cut there
        return
    assert found == expected


def _header_end(item: CorpusObject) -> int:
    """CSV is never cut in its header, which may be one of several lines in quotes; past it all, where that is so."""
    body = Path(item.uri.removeprefix("file://")).read_bytes()
    head = body[: body.find(b"\n") + 1]
    return len(head) if head.strip() and b'"' not in head else len(body)


READING = ReadOptions(id_columns=("id",), keep_columns=("kept",), max_document_bytes=4096)
PLAIN = ReadOptions(max_document_bytes=4096)


def read_lines(data: bytes) -> None:
    """JSON Lines."""
    _read("x.jsonl", data, READING)


def read_gzip(data: bytes) -> None:
    """Compressed JSON Lines."""
    _read("x.jsonl.gz", data, PLAIN)


def read_csv(data: bytes) -> None:
    """CSV."""
    _read("x.csv", data, READING)


def read_text(data: bytes) -> None:
    """Plain text."""
    _read("x.txt", data, PLAIN)


def read_arrow(data: bytes) -> None:
    """Arrow files and streams, whose record batches are read as they lie in the object."""
    _read("x.arrow", data, READING)


def read_warc(data: bytes) -> None:
    """Web archives, compressed or not, whatever the name says."""
    _read("x.warc.gz", data, ReadOptions(id_columns=("WARC-Record-ID",), max_document_bytes=4096))


def read_parquet(data: bytes) -> None:
    """Parquet: with a kept column of lists where it has one, else the text alone."""
    _read("x.parquet", data, READING)
    _read("x.parquet", data, PLAIN)


def build_job(data: bytes) -> None:
    """Arguments of any types; what is accepted is the same when it is built again."""
    with suppress(orjson.JSONDecodeError):
        values = orjson.loads(data)
        with suppress(CorpuscoreError):
            job = Job.build(values)
            assert Job.build(job.model_dump()) == job
            assert len(job.options_digest) == 64


def load_manifest(data: bytes) -> None:
    """A manifest under the id of another content."""
    store = Store(str(_folder()))
    store.write(f"manifests/{'0' * 64}.parquet", data)
    with suppress(CorpuscoreError):
        Manifest.load(store, "0" * 64)
        raise AssertionError("its content is not what its id says")


def read_documents(data: bytes) -> None:
    """What may lie where a receipt, or a document of a run, should: one or none, damaged or not."""
    store = Store(str(_folder()))
    store.write(receipt_key(_WORK), data)
    found = read_receipts(store, [_WORK])
    assert len(found.found) + len(found.damaged) == 1
    assert (read_receipt(store, _WORK) is None) or found.found
    for name, parse in _DOCUMENTS.items():
        store.write(name, data)
        with suppress(CorpuscoreError):
            read_document(store, name, parse)


_WORK = "a" * 32
_DOCUMENTS: dict[str, Callable[[Any], object]] = {
    **{f"{name}.json": functools.partial(document_of, name) for name in ("findings", "load", "score/1")},
    "checked.json": functools.partial(checked_of, [_WORK]),
    "run.json": functools.partial(facts_of, "run"),
}


@functools.cache
def _model() -> Path:
    from tests.scoring.checkpoints import write_checkpoint  # takes seconds, which the other targets do without

    return write_checkpoint(_folder() / "model")


def _score_with(name: str, data: bytes) -> None:
    """Describe, load and use a checkpoint of which one file is other than it was."""
    folder = _folder() / "spoilt"
    if not folder.exists():
        shutil.copytree(_model(), folder)
    (folder / name).write_bytes(data)
    try:
        with suppress(CorpuscoreError):
            described = describe_scorer(str(folder), device="cpu")
            scorer = load_scorer(str(folder), device="cpu", max_tokens=_WINDOW, threads=1)
            assert scorer.info == described
            assert scorer.score(["a storm", ""]).shape == (2, len(described.labels))
    finally:
        (folder / name).write_bytes((_model() / name).read_bytes())


def load_config(data: bytes) -> None:
    """config.json."""
    _score_with("config.json", data)


def load_tokenizer(data: bytes) -> None:
    """tokenizer.json."""
    _score_with("tokenizer.json", data)


def load_weights(data: bytes) -> None:
    """model.safetensors."""
    _score_with("model.safetensors", data)


LINES = [
    b'{"id": 1, "kept": [1, {"a": null}], "text": "a storm"}\n{"id": "\\u00e9", "text": "soup"}\n',
    b'\xef\xbb\xbf{"id": 12345678901234567890, "text": "\\ud83d\\ude00", "kept": 1e400}\r\n\r\n[1]\n{"text": null}',
]


def _tables() -> list[bytes]:
    tables = [
        pa.table({"text": ["a", None, "b" * 5000], "id": [1, 2, 3], "kept": [[1], None, [2, 3]]}),
        pa.table({"text": pa.array([b"\xff", b"a"]), "id": ["x", "y"], "kept": [{"a": "b"}, None]}),
        pa.table({"text": pa.array(["a"] * 9).dictionary_encode(), "id": ["x"] * 9, "kept": [["y", "z"]] * 9}),
    ]
    return [_parquet(table, **options) for table in tables for options in (
        {"compression": "none"}, {"use_dictionary": False, "row_group_size": 1, "data_page_version": "2.0"}
    )]  # fmt: skip


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _jobs() -> list[bytes]:
    plain = {"corpus": ["a"], "work": "b", "warehouse": "duckdb:///c", "model": "bundled"}
    full = {**plain, "id_columns": ["x"], "keep_columns": ["y"], "workers": 2, "table": "a.b", "max_tokens": 8}
    return [json.dumps(values).encode() for values in (plain, full)]


def _manifests() -> list[bytes]:
    kind: Format = "jsonl"
    parts = [Partition("file:///a", "e", 9, kind, "bytes", at, at + 3) for at in (0, 3, 6)]
    info = ScorerInfo(("a", "b"), "softmax", "f" * 16, "bert", "fp32", "bundled")
    made = Manifest.freeze(
        scorer=info, reading=READING, max_tokens=8, long_documents="mean", options_digest="o", partitions=parts
    )
    store = Store(str(_folder()))
    return [store.read(made.save(store))]


def _documents() -> list[bytes]:
    part = part_key(_WORK, "b")
    counts: dict[str, Any] = {
        "size_bytes": 9,
        "rows": 2,
        "scored": 1,
        "rejected": 1,
        "truncated": 0,
        "tokens": 3,
        "unique_texts": 1,
    }
    receipt = Receipt(
        work_id=_WORK, uri="file:///a", etag="e", part=part, digest="d", reasons={"empty": 1}, seconds=0.5,
        busy={"read": 0.1}, worker="w", **counts,
    )  # fmt: skip
    checked = {"parts": [{"work_id": _WORK, "uri": "u", "part": part, "digest": "d", "scored": 1, "rejected": 1}]}
    deep = b'{"findings": ' + b"[" * 1000 + b"]" * 1000 + b', "seal": "sha256:0"}'
    plain = json.dumps(receipt.to_json()).encode()
    return [sealed(receipt_key(_WORK), receipt.to_json()), sealed("checked.json", checked), plain, deep]


RECORDS = [
    b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 2\r\n\r\na\n\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 7\r\n\r\na\n\xc3\xa9 b.\r\n\r\n",
]


def _streams() -> list[bytes]:
    """Arrow files and streams, compressed or not, with a dictionary, nested values and views."""
    table = pa.table(
        {
            "id": range(9),
            "text": [f"text {number}" for number in range(8)] + [None],
            "kept": pa.array(["a", "b", "c"] * 3).dictionary_encode(),
            "unread": pa.array([[{"x": "y" * number}] for number in range(9)]),
        }
    )
    made = []
    for writer, compression in ((pa.ipc.new_file, None), (pa.ipc.new_file, "zstd"), (pa.ipc.new_stream, "lz4")):
        sink = io.BytesIO()
        with writer(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as opened:
            opened.write_table(table, max_chunksize=4)
        made.append(sink.getvalue())
    return made


TARGETS: dict[str, Target] = {
    "jsonl": Target(read_lines, lambda: LINES),
    "gzip": Target(read_gzip, lambda: [gzip.compress(line, mtime=0) * 2 for line in LINES]),
    "csv": Target(
        read_csv, lambda: [b'id,text,kept\n1,"a ""b""\nc",d\r\n2,e,\n\n3,f\n', b'"id","text","kept"\n1,",2\n']
    ),
    "text": Target(read_text, lambda: [b"a\nb\n\n \nc\r\n\r\nd", b"\xef\xbb\xbf\n\n\xff\n" + b"x" * 5000]),
    "parquet": Target(read_parquet, _tables),
    "arrow": Target(read_arrow, _streams),
    "warc": Target(read_warc, lambda: [gzip.compress(record, mtime=0) * 2 for record in RECORDS] + [b"".join(RECORDS)]),
    "job": Target(build_job, _jobs),
    "manifest": Target(load_manifest, _manifests),
    "documents": Target(read_documents, _documents),
    "messages": Target(read_message, messages),
    "config": Target(load_config, lambda: [(_model() / "config.json").read_bytes()]),
    "tokenizer": Target(load_tokenizer, lambda: [(_model() / "tokenizer.json").read_bytes()]),
    "weights": Target(load_weights, lambda: [(_model() / "model.safetensors").read_bytes()]),
}
