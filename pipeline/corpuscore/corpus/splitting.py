"""Objects -> partitions: the unit of work, cut so that every record belongs to exactly one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from corpuscore.corpus.counting import ReadCounts
from corpuscore.corpus.csvdocuments import read_head
from corpuscore.corpus.encodings import is_cuttable, record_encoding
from corpuscore.corpus.formats import check_columns, check_effect, check_reading, compression_of
from corpuscore.corpus.lenientjson import load_json
from corpuscore.corpus.listing import CorpusObject
from corpuscore.corpus.opening import PlannedObject
from corpuscore.corpus.parquet import check_schema, open_parquet
from corpuscore.corpus.records import BOM, lines
from corpuscore.errors import CorpusError
from corpuscore.job import ReadOptions
from corpuscore.records import Format, Partition, RangeKind

_PROBES = 32  # objects that are looked into at once
_AHEAD = 256  # objects planned ahead of the one that is asked for
_SMALL_BYTES = 256 * 2**10
_SMALL_ROW_BYTES = 64  # an object with fewer bytes a row asked for is one partition, unread
_SAMPLE_BYTES = 2**18


def split(objects: Iterable[CorpusObject], partition_rows: int, reading: ReadOptions) -> Iterator[Partition]:
    """The partitions of some objects, in their order, of about partition_rows documents each.

    How an object is cut depends on nothing but itself and partition_rows, so that a corpus that grew keeps the work ids
    of what it had. Small objects become one partition without being opened (but the first of each format is); of the
    others a footer or a first few bytes are read, whatever their size. Parquet is cut between row groups, the rest by
    bytes (readers find the records in a range); what is compressed, or in an encoding such as UTF-16, is never cut.

    Raises:
        CorpusError: A column is missing, or an object cannot be read.
        ObjectChanged: An object was replaced since it was listed.
        JobError: The options don't go with the format.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    seen: set[Format] = set()
    waiting: deque[Future[list[Partition]] | list[Partition]] = deque()
    with ThreadPoolExecutor(_PROBES) as pool:
        try:
            for item in objects:
                if item.format not in seen and item.size_bytes:
                    seen.add(item.format)
                    check_reading(reading, item.format)
                    _probe(item, partition_rows, reading)
                unread = _is_one_partition(item, partition_rows, reading)
                waiting.append([_whole(item)] if unread else pool.submit(_probe, item, partition_rows, reading))
                while len(waiting) > _AHEAD:
                    yield from _result(waiting.popleft())
            while waiting:
                yield from _result(waiting.popleft())
            check_effect(reading, seen)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(planned: Future[list[Partition]] | list[Partition]) -> list[Partition]:
    return planned.result() if isinstance(planned, Future) else planned


def _is_one_partition(item: CorpusObject, partition_rows: int, reading: ReadOptions) -> bool:
    whole = compression_of(item.uri) is not None or not is_cuttable(reading.encoding)
    if item.format == "parquet" and not item.size_bytes:
        return False  # which is an error, and none of a worker
    if whole and item.format != "parquet":
        return True
    return item.size_bytes <= min(_SMALL_BYTES, _SMALL_ROW_BYTES * partition_rows)


def _partition(item: CorpusObject, kind: RangeKind, start: int, stop: int, rows: int | None = None) -> Partition:
    return Partition(item.uri, item.etag, item.size_bytes, item.format, kind, start, stop, rows)


def _whole(item: CorpusObject) -> Partition:
    return _partition(item, "whole", 0, 0)


def _probe(item: CorpusObject, partition_rows: int, reading: ReadOptions) -> list[Partition]:
    """Look into an object: check its columns, and cut it."""
    planned = PlannedObject(item.uri, item.etag, encoding=reading.encoding)
    with planned.open() as file, planned.translated():
        if item.format == "parquet":
            opened = open_parquet(file, item.size_bytes).file
            check_schema(item.uri, opened.schema_arrow, reading)
            metadata = opened.metadata
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            return list(_by_row_groups(item, rows, partition_rows))
        if not item.size_bytes:  # no documents, and no columns that could be missing
            return []
        sample = _sample(planned.blocks(file, _SAMPLE_BYTES))
        if item.format == "csv":
            starts = _check_csv(planned, sample, reading)
            records, header_bytes = len(starts), starts[0] if starts else item.size_bytes
        elif item.format == "jsonl":
            _check_json(item, sample, reading)
            records, header_bytes = sample.count(b"\n"), 0
        else:
            records, header_bytes = sample.count(b"\n\n") + sample.count(b"\n\r\n"), 0
        if not planned.can_be_cut:
            return [_whole(item)]
        return list(_by_bytes(item, len(sample) / max(1, records) * partition_rows, header_bytes))


def _sample(blocks: Iterable[bytes]) -> bytes:
    """The first bytes of an object; a compressed one may give them in small pieces."""
    sample = bytearray()
    for block in blocks:
        sample += block
        if len(sample) >= _SAMPLE_BYTES:
            break
    return bytes(sample)


def _by_row_groups(item: CorpusObject, rows: list[int], partition_rows: int) -> Iterator[Partition]:
    start = count = 0
    for group, found in enumerate(rows):
        count += found
        if count >= partition_rows or (group == len(rows) - 1 and count):
            yield _partition(item, "row_groups", start, group + 1, count)
            start, count = group + 1, 0


def _by_bytes(item: CorpusObject, mean_bytes: float, header_bytes: int) -> Iterator[Partition]:
    """Ranges of equal length, about mean_bytes each, none of which ends in the header.

    Which records belong to them is left to who reads them.
    """
    count = max(1, round(item.size_bytes / mean_bytes))
    inner = (item.size_bytes * index // count for index in range(1, count))
    edges = [0, *(edge for edge in inner if edge > header_bytes), item.size_bytes]
    for start, stop in itertools.pairwise(edges):
        if start < stop:
            yield _partition(item, "bytes", start, stop)


def _check_csv(planned: PlannedObject, sample: bytes, reading: ReadOptions) -> list[int]:
    """Where the records below the header start in an object's beginning.

    Raises:
        CorpusError: The header is endless or no UTF-8, or lacks columns.
    """
    head = read_head(planned, [sample], reading, _SAMPLE_BYTES - 1, ReadCounts())
    if head is None:
        return []
    check_columns(planned.uri, reading, head.names)
    return [offset for offset, _ in head.records]


def _check_json(item: CorpusObject, sample: bytes, reading: ReadOptions) -> None:
    """Raise where the beginning of an object is JSON, but not lines of objects with the columns asked for.

    Raises:
        CorpusError: Naming the keys there are.
    """
    if sample.removeprefix(BOM).lstrip().startswith(b"["):
        raise CorpusError(
            f"{item.uri} holds a JSON array",
            rule="JSON Lines has one object a line",
            next_step="convert it, for example with: jq -c '.[]'",
        )
    keys: dict[str, None] = {}
    for _, body in lines([sample], 0, len(sample), len(sample)):
        try:
            text = (body or b"").removeprefix(BOM).decode(record_encoding(reading.encoding))
            _, value = load_json(text.encode())
        except ValueError:
            continue  # a reject when it is read, or the line in which the sample ends
        if isinstance(value, dict):
            keys.update(dict.fromkeys(value))
    if keys:
        check_columns(item.uri, reading, list(keys))
