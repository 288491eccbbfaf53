"""Objects -> partitions: the unit of work, cut so that every record belongs to exactly one."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from corpuscore.corpus.arrowfiles import OpenedArrow, open_arrow, rows_of_batches
from corpuscore.corpus.counting import ReadCounts
from corpuscore.corpus.csvdocuments import read_head
from corpuscore.corpus.encodings import is_cuttable, record_encoding
from corpuscore.corpus.fields import Fields, located
from corpuscore.corpus.formats import check_columns, check_effect, check_reading, chosen_columns, compression_of
from corpuscore.corpus.jsonvalues import MISSING, find
from corpuscore.corpus.keeping import KeptColumns, KeptHere
from corpuscore.corpus.lenientjson import load_json
from corpuscore.corpus.listing import CorpusObject
from corpuscore.corpus.opening import PlannedObject
from corpuscore.corpus.parquet import OpenedParquet, integer_bounds, open_parquet
from corpuscore.corpus.records import BOM, lines
from corpuscore.corpus.warcs import check_warc
from corpuscore.errors import CorpusError
from corpuscore.naming import Column
from corpuscore.options import ReadOptions
from corpuscore.records import Format, Partition, RangeKind

_Item = TypeVar("_Item")

_PROBES = 32  # objects that are looked into at once
_AHEAD = 256  # objects planned ahead of the one that is asked for
_SMALL_BYTES = 256 * 2**10
_SMALL_ROW_BYTES = 64  # an object with fewer bytes a row asked for is one partition, unread
_SAMPLE_BYTES = 2**18
_LOOKED_INTO = 1000  # objects whose columns are checked though they are one partition anyway


def spread(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """Some of many, evenly, `most` of them at the most."""
    return items[:: max(1, math.ceil(len(items) / most))]


def split(
    objects: Iterable[CorpusObject], partition_rows: int, reading: ReadOptions, kept: KeptColumns | None = None
) -> Iterator[Partition]:
    """The partitions of some objects, in their order, of about partition_rows documents each.

    How an object is cut depends on nothing but itself and partition_rows, so that a corpus that grew keeps the work ids
    of what it had. Small objects become one partition. Of each object a footer or a first few bytes are read, whatever
    its size; beyond the first thousand, small ones without types to be unified are taken unread. Parquet is cut between
    row groups, the rest by bytes (readers find the records in a range); what is compressed, or in an encoding such as
    UTF-16, is never cut.

    Args:
        objects: In their order.
        partition_rows: Documents of a partition.
        reading: Which columns.
        kept: Filled with the types of kept columns; complete after the last partition.

    Raises:
        CorpusError: A column is missing, kept columns have types that do not go together, or an object cannot be read.
        ObjectChanged: An object was replaced since it was listed.
        JobError: The options don't go with the format.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    kept = kept or KeptColumns(reading)
    waiting: deque[Future[_Probed] | _Probed] = deque()
    seen: set[Format] = set()
    looked_into = 0
    with ThreadPoolExecutor(_PROBES) as pool:
        try:
            for item in objects:
                if item.size_bytes:
                    seen.add(item.format)
                    check_reading(reading, item.format, item.uri)
                unread = _is_one_partition(item, partition_rows, reading) and looked_into >= _LOOKED_INTO
                if unread and not (item.format == "parquet" and reading.kept):
                    waiting.append(_Probed([_whole(item)], _text_here(item, reading)))
                else:
                    looked_into += 1
                    waiting.append(pool.submit(_probe, item, partition_rows, reading))
                while len(waiting) > _AHEAD:
                    yield from _result(waiting.popleft(), kept)
            while waiting:
                yield from _result(waiting.popleft(), kept)
            check_effect(reading, seen)
            kept.check(
                pool.map(partial(_bounds, reading), *zip(*kept.doubtful(), strict=True)) if kept.doubtful() else ()
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Probed(NamedTuple):
    """How an object is cut, and its kept columns; None where it says nothing of them."""

    partitions: list[Partition]
    kept: KeptHere | None


def _result(planned: Future[_Probed] | _Probed, kept: KeptColumns) -> list[Partition]:
    found = planned.result() if isinstance(planned, Future) else planned
    if found.kept:
        kept.add(found.kept)
    return found.partitions


def _is_one_partition(item: CorpusObject, partition_rows: int, reading: ReadOptions) -> bool:
    whole = compression_of(item.uri) is not None or not is_cuttable(reading.encoding)
    if item.format == "parquet" and not item.size_bytes:
        return False  # which is an error, and none of a worker
    if whole and item.format not in ("parquet", "arrow"):
        return True
    return item.size_bytes <= min(_SMALL_BYTES, _SMALL_ROW_BYTES * partition_rows)


def _text_here(
    item: CorpusObject, reading: ReadOptions, names: Sequence[str] = (), missing: Sequence[str] = ()
) -> KeptHere:
    """Kept columns of a format of text; whether a reader finds one or not, it is text."""
    return KeptHere(item, dict.fromkeys(reading.kept_names, pa.string()), names, missing)


def _partition(item: CorpusObject, kind: RangeKind, start: int, stop: int, rows: int | None = None) -> Partition:
    return Partition(item.uri, item.etag, item.size_bytes, item.format, kind, start, stop, rows)


def _whole(item: CorpusObject) -> Partition:
    return _partition(item, "whole", 0, 0)


def _probe(item: CorpusObject, partition_rows: int, reading: ReadOptions) -> _Probed:
    """Look into an object: check its columns, and cut it. A damaged one is left to its reader, if it may be."""
    is_one = _is_one_partition(item, partition_rows, reading)
    planned = PlannedObject(item.uri, item.etag, reading.anonymous, encoding=reading.encoding)
    with planned.open() as file, planned.translated():
        if item.format not in ("parquet", "arrow") and not item.size_bytes:
            return _Probed([_whole(item)] if is_one else [], None)  # no documents, and no columns that could be missing
        if item.format == "warc":
            check_warc(item.uri, file)
            return _Probed([_whole(item)], _text_here(item, reading))
        try:
            with planned.translated():
                seen = _looked_into(item, planned, file)
        except CorpusError:
            if not is_one:
                raise
            return _Probed([_whole(item)], None)  # the others are scored
        if isinstance(seen, OpenedParquet):
            found = _cut_parquet(item, seen, partition_rows, reading)
        elif isinstance(seen, OpenedArrow):
            found = _cut_arrow(item, seen, partition_rows, reading)
        else:
            found = _cut_lines(item, planned, seen, partition_rows, reading)
            is_one = is_one or not planned.can_be_cut
    return found._replace(partitions=[_whole(item)]) if is_one else found


def _looked_into(item: CorpusObject, planned: PlannedObject, file: Any) -> OpenedParquet | OpenedArrow | bytes:
    """What says how to cut an object: what is written about its rows, or its first bytes."""
    if item.format == "parquet":
        return open_parquet(file, item.size_bytes)
    return open_arrow(file) if item.format == "arrow" else _sample(planned.blocks(file, _SAMPLE_BYTES))


def _cut_lines(
    item: CorpusObject, planned: PlannedObject, sample: bytes, partition_rows: int, reading: ReadOptions
) -> _Probed:
    header_bytes = 0
    if item.format == "csv":
        starts, here = _check_csv(item, planned, sample, reading)
        records, header_bytes = len(starts), starts[0] if starts else item.size_bytes
    elif item.format == "jsonl":
        here = _check_json(item, sample, reading)
        records = sample.count(b"\n")
    else:
        here = _text_here(item, reading, (), check_columns(item.uri, reading, [], reading.text_column.__eq__))
        records = sample.count(b"\n\n") + sample.count(b"\n\r\n")
    return _Probed(list(_by_bytes(item, len(sample) / max(1, records) * partition_rows, header_bytes)), here)


def _cut_parquet(item: CorpusObject, opened: OpenedParquet, partition_rows: int, reading: ReadOptions) -> _Probed:
    schema, metadata = opened.file.schema_arrow, opened.file.metadata
    fields = Fields(item.uri, schema, reading)
    kinds = dict(zip(fields.kept_schema.names, fields.kept_schema.types, strict=True))
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    here = KeptHere(item, kinds, schema.names, fields.missing)
    return _Probed(list(_by_row_groups(item, rows, partition_rows)), here)


def _bounds(reading: ReadOptions, column: Column, item: CorpusObject) -> tuple[int, int] | None:
    """The smallest and the largest integer of a column of a Parquet object; None where no footer says."""
    if item.format != "parquet":
        return None
    planned = PlannedObject(item.uri, item.etag, reading.anonymous)
    with planned.open() as file, planned.translated():
        opened = open_parquet(file, item.size_bytes)
        return integer_bounds(opened, ".".join(located(opened.file.schema_arrow, column.path)))


def _cut_arrow(item: CorpusObject, opened: OpenedArrow, partition_rows: int, reading: ReadOptions) -> _Probed:
    """Cut it between record batches; a stream is not cut."""
    fields = Fields(item.uri, opened.schema, reading)
    kinds = dict(zip(fields.kept_schema.names, fields.kept_schema.types, strict=True))
    here = KeptHere(item, kinds, opened.schema.names, fields.missing)
    if opened.batches is None:
        return _Probed([_whole(item)], here)
    return _Probed(list(_by_row_groups(item, rows_of_batches(opened), partition_rows)), here)


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


def _check_csv(
    item: CorpusObject, planned: PlannedObject, sample: bytes, reading: ReadOptions
) -> tuple[list[int], KeptHere | None]:
    """Where the records below the header start in an object's beginning, and its kept columns.

    Raises:
        CorpusError: The header is endless or no UTF-8, or lacks columns.
    """
    head = read_head(planned, [sample], reading, _SAMPLE_BYTES - 1, ReadCounts())
    if head is None:
        return [], None
    missing = check_columns(item.uri, reading, head.names, head.names.__contains__)
    return [offset for offset, _ in head.records], _text_here(item, reading, head.names, missing)


def _check_json(item: CorpusObject, sample: bytes, reading: ReadOptions) -> KeptHere | None:
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
    missing = set(chosen_columns(reading))
    for _, body in lines([sample], 0, len(sample), len(sample)):
        try:
            text = (body or b"").removeprefix(BOM).decode(record_encoding(reading.encoding))
            _, value = load_json(text.encode())
        except ValueError:
            continue  # a reject when it is read, or the line in which the sample ends
        if isinstance(value, dict):
            keys.update(dict.fromkeys(value))
            missing = {path for path in missing if find(value, path) is MISSING}
    if not keys:
        return None
    names = list(keys)
    return _text_here(item, reading, names, check_columns(item.uri, reading, names, lambda path: path not in missing))
