"""What a load has still to do to the rejects and to the ledger, once the scores are committed.

A catalog commits one table at a time. So the commit of the scores is the load: it names a journal, which was written
before, in the properties of its table. Rejects and ledger follow it, each in a commit that names the same load. Whoever
opens the tables looks whether both have followed, and does first what is missing. So each of the three commits is done
once, in this order, wherever a process was killed. Loads are numbered, so that nobody follows an old one again.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.io import FileIO

from corpuscore.warehouse.tables import LEDGER

#: Properties of the tables: the last load that they hold, and where its journal is.
LOAD, JOURNAL = "corpuscore.load", "corpuscore.journal"


def following(load: str) -> str:
    """The name of the load after one, which is greater as text; the number alone would not say whose it is."""
    return f"{int(load.partition('-')[0] or 0) + 1:012d}-{uuid.uuid4().hex}"


_IDS = pa.schema([pa.field("work_id", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True)
class Journal:
    """What follows the commit of the scores.

    Attributes:
        rejects: New rows of the rejects table.
        entries: New rows of the ledger.
        deleted: Work ids whose rejects go.
        replaced: Ids whose ledger entries go, or come anew with `entries`.
    """

    rejects: pa.Table
    entries: pa.Table
    deleted: Collection[str]
    replaced: Collection[str]

    def write(self, io: FileIO, path: str) -> None:
        """Write it to a new file."""
        tables = (self.rejects, self.entries, _ids(self.deleted), _ids(self.replaced))
        with io.new_output(path).create() as file, pa.output_stream(file) as stream:
            for table in tables:
                with pa.ipc.new_stream(stream, table.schema) as writer:
                    writer.write_table(table)

    @classmethod
    def read(cls, io: FileIO, path: str) -> Journal:
        """From its file.

        Raises:
            FileNotFoundError: It is gone, since all of it was done.
        """
        with io.new_input(path).open() as file:
            stream = pa.BufferReader(file.read())
        rejects, entries, deleted, replaced = (pa.ipc.open_stream(stream).read_all() for _ in range(4))
        return cls(rejects, entries.cast(LEDGER), *(set(ids["work_id"].to_pylist()) for ids in (deleted, replaced)))


def _ids(values: Collection[str]) -> pa.Table:
    return pa.table([pa.array(sorted(values), pa.string())], schema=_IDS)
