"""A folder of Parquet files, here or in S3: files by work id, and one small document that says which of them count.

    FOLDER/SCHEMA/TABLE/current.json             swapped by each commit; names the two tables below
                        ledger/N-….parquet       the ledger after commit N, with the files of each work id
                        runs/N-….parquet         the runs
                        scores/WORK_ID-….parquet written before the commit that makes it count, and never again
                        rejects/WORK_ID-….parquet

A reader takes current.json, and what it names is one moment of the tables; files that count no more stay for a day.
"""

from __future__ import annotations

import io
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.addresses import shown
from corpuscore.errors import WarehouseError
from corpuscore.files import scratch_folder
from corpuscore.options import TableOptions
from corpuscore.records import CheckedPart
from corpuscore.storage import Pointed, Pointer, Store, concurrently, translated
from corpuscore.warehouse.lake.state import Change, confirmed, is_one_of, unchanged
from corpuscore.warehouse.lake.stores import store_errors
from corpuscore.warehouse.lake.warehouse import LakeWarehouse, Role
from corpuscore.warehouse.protocol import LoadBatch
from corpuscore.warehouse.stream import PartStream
from corpuscore.warehouse.tables import LEDGER, RUNS

_POINTER = "current.json"
_FORMAT = 1
#: Files that count no more stay for so long: a reader, or a load, may be at them.
_KEPT = timedelta(days=1)
#: Rows that are read at the same time, from several files.
_ROWS_AT_ONCE = 200_000

_LEDGER = pa.schema([*LEDGER, pa.field("scores_file", pa.string()), pa.field("rejects_file", pa.string())])


def connect(url: str, table: str, options: TableOptions) -> ParquetWarehouse:
    """Open the folder of a URL: `parquet:///FOLDER` (`parquet:////folder` is absolute), or `parquet+s3://bucket/prefix`.

    Raises:
        WarehouseError: It names no folder, or the store refuses.
    """
    return ParquetWarehouse(_location(url), table, options)


def _location(url: str) -> str:
    parts = urlsplit(url)
    rule = (
        "parquet:///FOLDER is relative to the working folder, parquet:////FOLDER absolute; parquet+s3://BUCKET/PREFIX"
    )
    if parts.query or parts.fragment or not parts.path.strip("/"):
        raise WarehouseError(f"{shown(url)} names no folder for Parquet files", rule=rule)
    if parts.scheme == "parquet" and not parts.netloc:
        return str(Path(unquote(parts.path[1:])).absolute())
    if parts.scheme == "parquet+s3" and parts.netloc:
        return f"s3://{parts.netloc}{parts.path}"
    raise WarehouseError(f"{shown(url)} names no folder for Parquet files", rule=rule)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the tables: what current.json says.

    Attributes:
        pointed: The document, as the swap needs it; None before the first.
        version: Commits so far.
        columns: Type by name, of the scores and of the rejects.
        listed: What the column of labels lists, in words.
        ledger, runs: Keys of their files.
    """

    pointed: Pointed | None
    version: int
    columns: Mapping[Role, Mapping[str, str]]
    listed: str
    ledger: str
    runs: str

    @classmethod
    def read(cls, pointed: Pointed) -> Snapshot:
        """From the document.

        Raises:
            WarehouseError: It is of a later version of corpuscore, or no such document.
        """
        try:
            found = json.loads(pointed.body)
            if found["format"] == _FORMAT:
                columns: dict[Role, dict[str, str]] = {"scores": found["scores"], "rejects": found["rejects"]}
                return cls(pointed, found["version"], columns, found["listed"], found["ledger"], found["runs"])
            problem = f"is of format {found['format']}"
        except (ValueError, KeyError, TypeError) as error:
            problem = f"cannot be read ({type(error).__name__}: {error})"
        raise WarehouseError(
            f"{_POINTER} {problem}", rule=f"This version reads format {_FORMAT}", next_step="restore it, or upgrade"
        )

    def body(self) -> bytes:
        """As a document that nobody has written before."""
        values = {
            "format": _FORMAT,
            "version": self.version,
            "id": uuid.uuid4().hex,
            "ledger": self.ledger,
            "runs": self.runs,
            "listed": self.listed,
            "scores": dict(self.columns["scores"]),
            "rejects": dict(self.columns["rejects"]),
        }
        return json.dumps(values, ensure_ascii=False, indent=1).encode()


class ParquetWarehouse(LakeWarehouse[Snapshot]):
    """Scores in Parquet files of a folder, or of a prefix of a bucket."""

    def __init__(self, location: str, table: str, options: TableOptions) -> None:
        super().__init__(table, options)
        folder = "/".join(part for part in (self.table.schema, self.table.name) if part)
        with store_errors():
            self._store = Store(f"{location.rstrip('/')}/{folder}")
            self._pointer = Pointer(self._store, _POINTER)
            self._pointer.read()
        self._read_ledgers: dict[str, pa.Table] = {}

    def __repr__(self) -> str:
        return f"ParquetWarehouse({self._store.uri})"

    def _look(self) -> Snapshot | None:
        with store_errors():
            pointed = self._pointer.read()
        return None if pointed is None else Snapshot.read(pointed)

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """See Warehouse. Sweeps files that have not counted for a day."""
        super().prepare(labels, kept)
        self._sweep()

    def _create(self, schemas: Mapping[Role, pa.Schema], listed: str) -> None:
        with store_errors():
            self._pointer.check()
        self._swap(Snapshot(None, -1, _names(schemas), listed, "", ""), _LEDGER.empty_table(), RUNS.empty_table())

    def _extend(self, state: Snapshot, schemas: Mapping[Role, pa.Schema]) -> bool:
        return self._swap(
            Snapshot(state.pointed, state.version, _names(schemas), state.listed, state.ledger, state.runs)
        )

    def _columns(self, state: Snapshot, role: Role) -> dict[str, str]:
        return dict(state.columns[role])

    def _type_name(self, kind: pa.DataType) -> str:
        return str(kind)

    def _listed(self, state: Snapshot) -> str:
        return state.listed

    def _ledger(self, state: Snapshot) -> pa.Table:
        if state.ledger not in self._read_ledgers:
            self._read_ledgers = {state.ledger: self._read(state.ledger)}
        return self._read_ledgers[state.ledger]

    def _read_runs(self, state: Snapshot) -> pa.Table:
        return self._read(state.runs)

    def _read(self, key: str) -> pa.Table:
        with store_errors():
            return _read_table(pa.BufferReader(self._store.read(key)))

    def _stage(self, state: Snapshot, batch: LoadBatch, parts: Sequence[CheckedPart]) -> list[Any]:
        return concurrently(lambda part: self._write_part(batch, part), list(parts))

    def _write_part(self, batch: LoadBatch, part: CheckedPart) -> dict[str, str | None]:
        """Write the rows of a part; the keys of its two files, None where one would have no rows."""
        name = f"{part.work_id}-{uuid.uuid4().hex[:12]}.parquet"
        with PartStream(batch, [part], self.options) as stream:
            scores = self._upload(stream.scores(), f"scores/{name}")
            rejects = self._upload(stream.rejects(), f"rejects/{name}") if part.rejected else None
        return {"scores_file": scores, "rejects_file": rejects}

    def _upload(self, rows: pa.RecordBatchReader, key: str) -> str | None:
        """Write rows to a file of the table, through one here; its key, None where there are no rows."""
        first = next(rows, None)
        if first is None:
            return None
        with translated(f"write a copy of {key}"), scratch_folder() as folder:
            path = folder / "rows.parquet"
            with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
                for batch in itertools.chain([first], rows):
                    writer.write_batch(batch)
            with store_errors():
                self._store.upload(path, key)
        return key

    def _commit(self, state: Snapshot, change: Change) -> bool:
        ledger = self._ledger(state)
        entered = change.entries
        for name in ("scores_file", "rejects_file"):
            files = [change.files.get(work_id, {}).get(name) for work_id in entered["work_id"].to_pylist()]
            entered = entered.append_column(_LEDGER.field(name), pa.array(files, pa.string()))
        return self._swap(state, pa.concat_tables([unchanged(ledger, change), confirmed(ledger, change), entered]))

    def _write_run(self, state: Snapshot, row: pa.Table) -> bool:
        runs = self._read_runs(state)
        others = runs.filter(pc.invert(is_one_of(runs["run_id"], row["run_id"].to_pylist())))
        return self._swap(state, None, pa.concat_tables([others, row]))

    def _swap(self, state: Snapshot, ledger: pa.Table | None = None, runs: pa.Table | None = None) -> bool:
        """Put the next snapshot in place of one, with another ledger or other runs where they are given."""
        name = f"{state.version + 1:08d}-{uuid.uuid4().hex[:12]}.parquet"
        keys = {"ledger": state.ledger, "runs": state.runs}
        for kind, table in (("ledger", ledger), ("runs", runs)):
            if table is not None:
                keys[kind] = f"{kind}/{name}"
                self._write(keys[kind], table)
        following = Snapshot(state.pointed, state.version + 1, state.columns, state.listed, **keys)
        with store_errors():
            return self._pointer.swap(state.pointed, following.body())

    def _write(self, key: str, table: pa.Table) -> None:
        body = io.BytesIO()
        pq.write_table(table, body, compression="zstd")
        with store_errors():
            self._store.write(key, body.getvalue())

    def _count_rows(self, state: Snapshot, role: Role, work_ids: Sequence[str]) -> int:
        found = self._ledger(state)
        files = found.filter(is_one_of(found["work_id"], work_ids))[f"{role}_file"].drop_null().to_pylist()
        return sum(concurrently(self._footer_rows, files))

    def _footer_rows(self, key: str) -> int:
        with store_errors(), self._store.open(key) as file:
            return int(pq.read_metadata(file).num_rows)

    def _rows(
        self, state: Snapshot, role: Role, columns: Sequence[str], model: str | None, work_ids: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        found = self._ledger(state)
        if model is not None:
            found = found.filter(pc.equal(found["model"], model))
        if work_ids is not None:
            found = found.filter(is_one_of(found["work_id"], work_ids))
        found = found.filter(pc.is_valid(found[f"{role}_file"]))
        sizes = found["scored" if role == "scores" else "rejected"].to_pylist()
        for keys in _grouped(found[f"{role}_file"].to_pylist(), sizes):
            if len(keys) == 1:
                yield from self._batches(keys[0], columns)
            else:
                yield from concurrently(lambda key: pa.concat_tables(self._batches(key, columns)), keys)

    def _batches(self, key: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        with store_errors(), self._store.open(key) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=list(columns), use_threads=False):
                yield pa.Table.from_batches([batch])

    def _sweep(self) -> None:
        """Delete files that have not counted for a day: superseded, or of loads that did not come to their commit."""
        with store_errors():
            old = [key for folder in ("scores/", "rejects/", "ledger/", "runs/") for key in self._older(folder)]
            if not old or (state := self._look()) is None:
                return
            ledger = self._ledger(state)
            counting = {state.ledger, state.runs}
            for name in ("scores_file", "rejects_file"):
                counting.update(ledger[name].drop_null().to_pylist())
            self._store.delete(key for key in old if key not in counting)

    def _older(self, folder: str) -> list[str]:
        return self._store.find_older(folder, _KEPT)


def _read_table(file: Any) -> pa.Table:
    """All of a Parquet file. Not by Arrow's own threads, which may hold the file while the process ends."""
    with pq.ParquetFile(file) as parquet:
        return parquet.read(use_threads=False)


def _names(schemas: Mapping[Role, pa.Schema]) -> dict[Role, dict[str, str]]:
    return {role: {field.name: str(field.type) for field in schema} for role, schema in schemas.items()}


def _grouped(keys: Sequence[str], sizes: Iterable[int]) -> Iterator[list[str]]:
    """Files together, up to so many rows; one alone may have more."""
    group: list[str] = []
    rows = 0
    for key, size in zip(keys, sizes, strict=True):
        if group and rows + size > _ROWS_AT_ONCE:
            yield group
            group, rows = [], 0
        group.append(key)
        rows += size
    if group:
        yield group
