"""The manifest: the frozen list of a run's partitions, planned once, addressed by its own hash."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from functools import cached_property
from operator import attrgetter
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.errors import DamagedDocument
from corpuscore.kinds import type_named
from corpuscore.options import ReadOptions
from corpuscore.records import LongDocuments, Partition, ScorerInfo, digest
from corpuscore.storage import Store

_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("rows", pa.int64()),
    ]
)
assert _SCHEMA.names == [field.name for field in fields(Partition)]  # noqa: S101 (partitions are built by position)
_values = attrgetter(*_SCHEMA.names)
_STEP = 8192  # partitions that exist as Python objects at once
_HEADER = b"corpuscore.manifest"


class Manifest:
    """The partitions of a run and what they are scored with. Frozen: the same content has the same id.

    Held as Arrow columns, so that 100,000 partitions take some 20 MB and pickle fast.

    Attributes:
        scorer: What scores.
        reading: Which columns are read.
        max_tokens: Window of the model in tokens.
        long_documents: What becomes of longer documents.
        options_digest: Digest of the options that change a part.
        kept: Kept columns of the table, whose types hold the values of all objects.
    """

    scorer: ScorerInfo
    reading: ReadOptions
    max_tokens: int
    long_documents: LongDocuments
    options_digest: str
    kept: pa.Schema

    def __init__(self, header: dict[str, Any], table: pa.Table) -> None:
        self._header = header
        self._table = table
        self.scorer = ScorerInfo.from_json(header["scorer"])
        self.reading = ReadOptions.from_json(header["reading"])
        self.max_tokens = header["max_tokens"]
        self.long_documents = header["long_documents"]
        self.options_digest = header["options_digest"]
        self.kept = pa.schema([(name, type_named(kind)) for name, kind in header["kept"]])

    def __reduce__(self) -> tuple[type[Manifest], tuple[dict[str, Any], pa.Table]]:
        return (Manifest, (self._header, self._table))

    @classmethod
    def freeze(
        cls,
        *,
        scorer: ScorerInfo,
        reading: ReadOptions,
        max_tokens: int,
        long_documents: LongDocuments,
        options_digest: str,
        partitions: Iterable[Partition],
        kept: Callable[[], pa.Schema] = lambda: pa.schema([]),
    ) -> Self:
        """Take the partitions in; an iterator is consumed without ever being held as objects.

        `kept` is asked for the kept columns once that is done.
        """
        source = iter(partitions)
        batches = []
        while step := list(itertools.islice(source, _STEP)):
            columns = zip(*map(_values, step), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        header = {
            "version": 2,
            "scorer": scorer.to_json(),
            "reading": asdict(reading),
            "max_tokens": max_tokens,
            "long_documents": long_documents,
            "options_digest": options_digest,
            "kept": [[field.name, str(field.type)] for field in kept()],
        }
        return cls(json.loads(json.dumps(header)), pa.Table.from_batches(batches, _SCHEMA).combine_chunks())

    @cached_property
    def id(self) -> str:
        """sha256 (hex) over the header and the columns in their canonical JSON form."""
        content = hashlib.sha256(digest(self._header).encode())
        for name in _SCHEMA.names:
            column = self._table.column(name)
            for start in range(0, len(column), _STEP):
                content.update(json.dumps(column.slice(start, _STEP).to_pylist(), ensure_ascii=False).encode())
        return content.hexdigest()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Partition]:
        for batch in self._table.to_batches(_STEP):
            columns = (column.to_pylist() for column in batch.columns)
            yield from itertools.starmap(Partition, zip(*columns, strict=True))

    def partition(self, index: int) -> Partition:
        """The partition at an index from 0."""
        return Partition(*(column[index].as_py() for column in self._table.columns))

    @cached_property
    def work_ids(self) -> list[str]:
        """The work id of each partition, in order."""
        return [partition.work_id(self.scorer.fingerprint, self.options_digest) for partition in self]

    @cached_property
    def uris(self) -> frozenset[str]:
        """The objects that have partitions."""
        return frozenset(self._table.column("uri").unique().to_pylist())

    @property
    def rows(self) -> int | None:
        """Documents in all; None where a format does not say before it is read."""
        rows = self._table.column("rows")
        return None if rows.null_count else sum(rows.to_pylist())

    def save(self, store: Store) -> str:
        """Write it under its id; the key.

        It is written though it may be there: whoever writes this key writes the same content, so none needs to win,
        and one that is damaged is mended. A conditional write may be refused for the sake of another writer, who then
        dies.

        Raises:
            StorageError, StorageUnavailable: The store refuses, or does not answer.
        """
        sink = io.BytesIO()
        named = self._table.replace_schema_metadata({_HEADER: json.dumps(self._header)})
        pq.write_table(named, sink, compression="zstd", write_page_checksum=True)
        store.write(_key(self.id), sink.getvalue())
        return _key(self.id)

    @classmethod
    def load(cls, store: Store, manifest_id: str) -> Self:
        """Read a manifest back.

        Raises:
            DamagedDocument: It is gone, or its content is not what its id says, as two requests say.
            StorageError, StorageUnavailable: The store refuses, or does not answer.
        """
        try:
            return cls._load(store, manifest_id)
        except DamagedDocument:  # or its bytes were, on their way
            return cls._load(store, manifest_id)

    @classmethod
    def _load(cls, store: Store, manifest_id: str) -> Self:
        body = store.read_if_there(_key(manifest_id))
        if body is None:
            raise _damaged(store, manifest_id, "is gone")
        try:
            table = pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
            header, columns = json.loads(table.schema.metadata[_HEADER]), table.replace_schema_metadata(None)
            if columns.schema != _SCHEMA:
                raise TypeError("it has other columns")
            manifest = cls(header, columns)
            found = manifest.id
        except (
            pa.ArrowException,
            OSError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            raise _damaged(store, manifest_id, f"cannot be read ({error})") from error
        if found != manifest_id:
            raise _damaged(store, manifest_id, f"has the content hash {found}")
        return manifest


def _key(manifest_id: str) -> str:
    return f"manifests/{manifest_id}.parquet"


def _damaged(store: Store, manifest_id: str, found: str) -> DamagedDocument:
    return DamagedDocument(
        f"the manifest {store.uri_of(_key(manifest_id))} {found}",
        rule="a manifest is stored under the hash of its content",
        next_step="plan again, which writes it anew; work that is done stays done",
    )
