"""The corpus of a run: real text in several formats, in two versions with the same names and ids."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from infra.stack.home import CHECKOUT

#: Documents of an object, and of a partition: so that most objects are cut.
OBJECT_ROWS = 75
PARTITION_ROWS = 25
_OBJECTS = (
    "plain-1.jsonl",
    "plain-2.jsonl",
    "table-1.csv",
    "table-2.csv",
    "columns-1.parquet",
    "columns-2.parquet",
    "packed-1.jsonl.gz",
    "packed-2.csv.gz",
    "deep/er/plain-3.jsonl",
    "deep/er/columns-3.parquet",
)
#: Documents without a text, each of which becomes a reject; few enough for --max-reject-fraction.
_EMPTY_EVERY = 150


@dataclass(frozen=True, slots=True)
class Document:
    """A document of an object."""

    id: str
    text: str


Objects = dict[str, list[Document]]


def objects(version: int = 1, count: int = len(_OBJECTS), copies: int = 1) -> Objects:
    """The corpus, object by object.

    Args:
        version: 2 has the same names and ids with other texts, and in each object one document fewer.
        count: Only so many objects.
        copies: So many times as many objects, under other names and ids.
    """
    texts = _texts()
    made: Objects = {}
    for copy in range(copies):
        for number, name in enumerate(_OBJECTS[:count]):
            prefix = f"{copy:02}-" if copies > 1 else ""
            rows = OBJECT_ROWS if version == 1 else OBJECT_ROWS - 1
            first = (copy * len(_OBJECTS) + number) * OBJECT_ROWS
            made[_named(prefix, name)] = [
                Document(f"{prefix}{name}#{at}", _text(texts, first + at, version)) for at in range(rows)
            ]
    return made


def _named(prefix: str, name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{prefix}{base}"


def _text(texts: list[str], at: int, version: int) -> str:
    if at % _EMPTY_EVERY == _EMPTY_EVERY - 2:
        return ""
    return texts[(at + (version - 1) * 4001) % len(texts)]


def encode(name: str, documents: list[Document]) -> bytes:
    """An object's bytes, in the format that its name says; the same for the same documents."""
    if name.endswith(".parquet"):
        sink = io.BytesIO()
        columns = {"id": [item.id for item in documents], "text": [item.text for item in documents]}
        pq.write_table(pa.table(columns), sink, row_group_size=PARTITION_ROWS)
        return sink.getvalue()
    plain = name.removesuffix(".gz")
    body = _csv(documents) if plain.endswith(".csv") else _jsonl(documents)
    return gzip.compress(body, mtime=0) if name.endswith(".gz") else body


def _jsonl(documents: Iterable[Document]) -> bytes:
    return b"".join(orjson.dumps({"id": item.id, "text": item.text}) + b"\n" for item in documents)


def _csv(documents: Iterable[Document]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(("id", "text"))
    writer.writerows((item.id, item.text) for item in documents)
    return sink.getvalue().encode()


def _texts() -> list[str]:
    """Paragraphs: of CORPUSCORE_DATA where it is set, else of the sample corpus."""
    folder = os.environ.get("CORPUSCORE_DATA")
    found = list(_real(Path(folder))) if folder else []
    return found or list(_sample())


def _real(folder: Path) -> Iterator[str]:
    with gzip.open(folder / "reddit-10k.csv.gz", "rt", encoding="utf-8", newline="") as file:
        comments = [row["body"][:600] for row in csv.DictReader(file)]
    novels = pq.read_table(folder / "novels.parquet", columns=["text"]).column("text").to_pylist()
    for comment, paragraph in zip(comments, novels, strict=False):
        yield from (text for text in (comment, paragraph[:600]) if text.strip())


def _sample() -> Iterator[str]:
    for path in sorted((CHECKOUT / "infra" / "demo" / "corpus").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            if text := (orjson.loads(line).get("text") or "").strip():
                yield text
