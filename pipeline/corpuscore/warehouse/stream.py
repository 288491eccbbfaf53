"""From parts to the rows of two tables, batch by batch, with memory bounded by a batch.

parts -> checked bytes -> scored rows straight to the insert
                       -> rejected rows aside, to the second insert
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.errors import ValidationFailed
from corpuscore.kinds import widened
from corpuscore.options import TableOptions
from corpuscore.parts import open_checked
from corpuscore.records import SCORED, CheckedPart, part_schema
from corpuscore.warehouse.derived import with_derived
from corpuscore.warehouse.protocol import LoadBatch
from corpuscore.warehouse.tables import rejects_schema, scores_schema, stored_rows, table_rows

_BATCH_ROWS = 16_384
_REJECTS_IN_MEMORY_BYTES = 16 * 2**20


class PartStream:
    """The rows of parts for the scores table, then those for the rejects table. Each part is read once.

    A driver pulls the batches through C and can only wrap what goes wrong here, so the error is kept in `error`.
    Read `scores()` to its end before `rejects()`.
    """

    def __init__(self, batch: LoadBatch, parts: Sequence[CheckedPart], options: TableOptions) -> None:
        self.error: Exception | None = None
        self.rejected = sum(part.rejected for part in parts)
        self._batch = batch
        self._parts = parts
        self._expected = part_schema(batch.kept, batch.labels)
        self._options = options
        self._scores = scores_schema(batch.labels, batch.kept, options)
        self._rejects = rejects_schema(batch.kept)
        self._aside = tempfile.SpooledTemporaryFile(max_size=_REJECTS_IN_MEMORY_BYTES)  # noqa: SIM115
        self._writer = pa.ipc.new_stream(self._aside, self._rejects)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._aside.close()

    def scores(self) -> pa.RecordBatchReader:
        """Rows of the scores table."""
        return pa.RecordBatchReader.from_batches(self._scores, self._keeping_errors())

    def rejects(self) -> pa.RecordBatchReader:
        """Rows of the rejects table; after scores()."""
        self._writer.close()
        self._aside.seek(0)
        return pa.ipc.open_stream(self._aside)

    def _keeping_errors(self) -> Iterator[pa.RecordBatch]:
        try:
            for part in self._parts:
                yield from self._part(part)
        except Exception as error:
            self.error = error
            raise

    def _part(self, part: CheckedPart) -> Iterator[pa.RecordBatch]:
        """Scored rows of a part; its rejects go aside."""
        origin = {"run_id": self._batch.run_id, "model": self._batch.model, "work_id": part.work_id}
        scored = rejected = 0
        with open_checked(self._batch.open_part, part.part, part.digest) as file:
            self._check_schema(part, file)
            for rows in file.iter_batches(_BATCH_ROWS):
                good, bad = _split(stored_rows(rows.cast(self._expected)))
                scored, rejected = scored + good.num_rows, rejected + bad.num_rows
                if bad.num_rows:
                    self._writer.write_batch(table_rows(bad, self._rejects, {**origin, "object_uri": part.uri}))
                if good.num_rows:
                    yield table_rows(with_derived(good, self._batch.labels, self._options), self._scores, origin)
        if (scored, rejected) != (part.scored, part.rejected):
            raise ValidationFailed(
                f"Part {part.part} has {scored} scored and {rejected} rejected rows",
                rule=f"Validation counted {part.scored} and {part.rejected}",
                next_step="validate the run again",
            )

    def _check_schema(self, part: CheckedPart, file: pq.ParquetFile) -> None:
        found = file.schema_arrow
        wanted = [field.type for field in self._expected]
        if found.names != self._expected.names or wanted != list(map(widened, wanted, found.types)):
            raise ValidationFailed(
                f"Part {part.part} has the columns {_columns(found)}",
                rule=f"This load is for {_columns(self._expected)}",
                next_step="load the parts of one scorer and one set of kept columns",
            )


def _split(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Scored rows and rejects; no copy where there are no rejects."""
    is_scored = pc.is_in(rows.column("status"), pa.array(SCORED))
    if is_scored.false_count == 0:
        return rows, rows.slice(0, 0)
    return rows.filter(is_scored), rows.filter(pc.invert(is_scored))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
