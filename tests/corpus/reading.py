"""How the tests of this folder read: whole objects and partitions, as plain rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corpuscore.corpus import CorpusObject, DocumentReader, list_objects
from corpuscore.options import ReadOptions
from corpuscore.records import Partition

Row = dict[str, Any]


def put(folder: Path, name: str, body: bytes) -> CorpusObject:
    """Write a file and list it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    (found,) = list_objects([str(path)])
    return found


def whole(item: CorpusObject) -> Partition:
    """All of an object."""
    return Partition(item.uri, item.etag, item.size_bytes, item.format, "whole", 0, 0)


def ranges(item: CorpusObject, edges: Iterable[int]) -> list[Partition]:
    """Byte ranges of an object between 0, the edges and its size."""
    cuts = sorted({0, item.size_bytes, *(edge for edge in edges if 0 < edge < item.size_bytes)})
    return [
        Partition(item.uri, item.etag, item.size_bytes, item.format, "bytes", start, stop)
        for start, stop in itertools.pairwise(cuts)
    ]


def rows(partitions: Iterable[Partition], reading: ReadOptions | None = None, batch_rows: int = 1024) -> list[Row]:
    """The rows of some partitions, one after the other."""
    found: list[Row] = []
    for partition in partitions:
        with DocumentReader(partition, reading or ReadOptions(), batch_rows) as reader:
            before = len(found)
            for batch in reader:
                assert 0 < batch.num_rows <= batch_rows
                batch.validate(full=True)
                found += batch.to_pylist()
            if reader.counts.lines is not None:  # counted by themselves
                assert reader.counts.lines == len(found) - before + sum(reader.counts.other_lines.values())
    return found


def texts(partitions: Iterable[Partition], reading: ReadOptions | None = None) -> list[str | None]:
    """Only the texts."""
    return [row["text"] for row in rows(partitions, reading)]


def reasons(partitions: Iterable[Partition], reading: ReadOptions | None = None) -> list[str | None]:
    """Only the reasons."""
    return [row["reason"] for row in rows(partitions, reading)]
