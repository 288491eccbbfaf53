"""The four tables as Arrow schemas: their columns, the names that clash, and how another table differs.

Pure; backends give each Arrow type its name in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.errors import WarehouseError
from corpuscore.kinds import kept_type
from corpuscore.options import TableOptions
from corpuscore.records import COLUMN_NEXT_STEP, COLUMN_RULE, OWN_COLUMNS, CheckedPart, column_problems

_SCORES_BEFORE = (
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
)
_SCORES_AFTER = (
    pa.field("status", pa.string(), nullable=False),
    pa.field("token_count", pa.int32()),
)
_REJECTS_BEFORE = (
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("object_uri", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)
_ORIGIN = (
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    pa.field("work_id", pa.string(), nullable=False),
)
LEDGER = pa.schema(
    [
        pa.field("work_id", pa.string(), nullable=False),
        pa.field("object_uri", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("scored", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("loaded_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("planned_at", pa.timestamp("us", "UTC")),  # null in rows from before this column was there
    ]
)
RUNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("finished_at", pa.timestamp("us", "UTC")),
        pa.field("manifest", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("scored", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("label_means", pa.string(), nullable=False),
        pa.field("details", pa.string(), nullable=False),
    ]
)


#: A table as it is without options.
PLAIN = TableOptions()

#: The column that lists the labels from the threshold on.
LISTED = "labels"


def scores_schema(labels: Sequence[str], kept: pa.Schema, options: TableOptions = PLAIN) -> pa.Schema:
    """Columns of the scores table: ids, kept columns, one number a label, what is derived of them, status and origin.

    Args:
        labels: All labels of the model.
        kept: Schema of the kept columns, as in the parts.
        options: Which of them the table has, and what else.
    """
    kind = score_type(options)
    scores = [pa.field(label, kind, nullable=False) for label in options.stored(labels)]
    return pa.schema([*_SCORES_BEFORE, *_stored(kept), *scores, *_derived(options), *_SCORES_AFTER, *_ORIGIN])


def score_type(options: TableOptions) -> pa.DataType:
    """Arrow type of the scores' columns."""
    return pa.float16() if options.score_type == "float16" else pa.float32()


def _derived(options: TableOptions) -> list[pa.Field]:
    listed = [pa.field(LISTED, pa.list_(pa.string()), nullable=False)] if options.threshold is not None else []
    top = [
        pa.field("top_label", pa.string(), nullable=False),
        pa.field("top_score", score_type(options), nullable=False),
    ]
    return [*listed, *(top if options.top_label else [])]


def threshold_words(options: TableOptions) -> str:
    """What the column of labels lists, as its comment says it; empty where there is none."""
    return "" if options.threshold is None else f"labels with a score of at least {options.threshold!r}"


def rejects_schema(kept: pa.Schema) -> pa.Schema:
    """Columns of the rejects table: ids, where, why, kept columns and origin."""
    return pa.schema([*_REJECTS_BEFORE, *_stored(kept), *_ORIGIN])


def _stored(kept: pa.Schema) -> list[pa.Field]:
    return [pa.field(field.name, stored_type(field.type)) for field in kept]


def ledger_rows(parts: Iterable[CheckedPart], run_id: str, model: str, planned_at: datetime) -> pa.Table:
    """New rows of the ledger, as of now."""
    now = datetime.now(UTC)
    rows = [
        {
            "work_id": part.work_id,
            "object_uri": part.uri,
            "model": model,
            "digest": part.digest,
            "part": part.part,
            "scored": part.scored,
            "rejected": part.rejected,
            "run_id": run_id,
            "loaded_at": now,
            "planned_at": planned_at,
        }
        for part in parts
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type of a few that every warehouse has, in which a kept column is stored; of no values at all, text."""
    nearest = kept_type(kind)
    return pa.string() if pa.types.is_null(nearest) else nearest


def stored_column(column: pa.Array) -> pa.Array:
    """A kept column in its stored type."""
    target = stored_type(column.type)
    if column.type == target:
        return column
    if pa.types.is_nested(column.type):
        values = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
        return pa.array(values, target)
    # Nanoseconds lose their last digits: no warehouse here stores them.
    return pc.cast(column, target, safe=not pa.types.is_temporal(column.type))


def stored_rows(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with every column in its stored type."""
    return pa.RecordBatch.from_arrays([stored_column(column) for column in rows.columns], names=rows.schema.names)


def table_rows(rows: pa.RecordBatch, schema: pa.Schema, constants: Mapping[str, str]) -> pa.RecordBatch:
    """Stored rows of a part in the columns of a table; `constants` fill the columns that a part does not have."""
    columns = [
        pa.repeat(constants[name], rows.num_rows) if name in constants else rows.column(name) for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a warehouse allows: bytes of a column name (UTF-8) and columns of a table; None: no limit."""

    max_bytes: int | None = None
    max_columns: int | None = None


def check_names(
    labels: Sequence[str],
    kept: pa.Schema,
    rule: NameRule = NameRule(),
    options: TableOptions = PLAIN,
) -> None:
    """Check that labels and kept columns can stand in one table.

    Raises:
        WarehouseError: Naming every label or kept column that clashes, is empty or too long.
    """
    derived = [field.name for field in _derived(options)]
    problems = column_problems(kept.names, labels, (*OWN_COLUMNS, *derived))
    for name in (*kept.names, *labels):
        size = len(name.encode())
        if rule.max_bytes is not None and size > rule.max_bytes:
            problems.append(f"{name!r} has {size} bytes, of {rule.max_bytes} at the most")
    columns = len(scores_schema(labels, kept, options))
    if rule.max_columns is not None and columns > rule.max_columns:
        problems.append(f"the table would have {columns} columns, of {rule.max_columns} at the most")
    if problems:
        raise WarehouseError("; ".join(problems), rule=COLUMN_RULE, next_step=COLUMN_NEXT_STEP)


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """How the columns of a table (name -> type) differ from those that are wanted, in words."""
    missing = [f"{name} ({kind}) is missing" for name, kind in wanted.items() if name not in found]
    extra = [f"{name} ({kind}) is extra" for name, kind in found.items() if name not in wanted]
    other = [
        f"{name} is {found[name]} instead of {kind}"
        for name, kind in wanted.items()
        if name in found and found[name] != kind
    ]
    return [*missing, *other, *extra]


def missing_kept(found: Mapping[str, Any], wanted: Mapping[str, Any], kept: Sequence[str]) -> list[str]:
    """Kept columns that a table can be given, since nothing else of its columns differs."""
    added = [name for name in kept if name in wanted and name not in found]
    rest = {name: kind for name, kind in wanted.items() if name not in added}
    return [] if differences(found, rest) else added


def other_schema(problems: Sequence[str]) -> WarehouseError:
    """The error for a table whose columns are not those of the job."""
    return WarehouseError(
        "; ".join(problems),
        rule="The first load decides a table's columns: labels, threshold, top label, scores' type, kept columns. "
        "Afterwards kept columns can be added, and nothing else changes",
        next_step="give the options of the first load, or another --table, or drop or rename the old tables",
    )


def one_row(schema: pa.Schema, values: Mapping[str, Any]) -> pa.RecordBatch:
    """One row as a record batch."""
    return pa.RecordBatch.from_pylist([dict(values)], schema=schema)
