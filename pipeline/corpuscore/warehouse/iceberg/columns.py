"""Stored types and schemas as Iceberg has them."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

#: First of the ids of list elements; ids of columns are smaller. A catalog gives ids of its own.
_ELEMENTS = 100_000

_TYPES: dict[pa.DataType, IcebergType] = {
    pa.bool_(): BooleanType(),
    pa.int16(): IntegerType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.date32(): DateType(),
    pa.time64("us"): TimeType(),
    pa.timestamp("us"): TimestampType(),
    pa.timestamp("us", "UTC"): TimestamptzType(),
}


def iceberg_type(kind: pa.DataType, element_id: int = _ELEMENTS) -> IcebergType:
    """The Iceberg type of a stored Arrow type."""
    if pa.types.is_decimal(kind):
        return DecimalType(kind.precision, kind.scale)
    if pa.types.is_list(kind):
        return ListType(element_id, iceberg_type(kind.value_type), element_required=False)
    return _TYPES[kind]


def iceberg_schema(schema: pa.Schema) -> Schema:
    """The Iceberg schema of stored columns."""
    fields = [
        NestedField(at, field.name, iceberg_type(field.type, _ELEMENTS + at), required=not field.nullable)
        for at, field in enumerate(schema, start=1)
    ]
    return Schema(*fields)


def by_work_id(schema: Schema) -> PartitionSpec:
    """The partitioning of a table each of whose files holds the rows of one work id."""
    source = schema.find_field("work_id").field_id
    return PartitionSpec(PartitionField(source_id=source, field_id=1000, transform=IdentityTransform(), name="work_id"))


def writable(rows: pa.Table) -> pa.Table:
    """Rows in types that Iceberg has: it has no 16 bits."""
    kinds = [pa.int32() if field.type == pa.int16() else field.type for field in rows.schema]
    return rows.cast(pa.schema([field.with_type(kind) for field, kind in zip(rows.schema, kinds, strict=True)]))


def bounds_left_out(columns: Iterable[pa.Field]) -> dict[str, str]:
    """Properties of a table: of dates and times values are counted, but no bounds are taken.

    pyiceberg makes Python's dates of bounds, which begin in the year 1 and end in 9999.
    """
    dates = (field.name for field in columns if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type))
    return {f"write.metadata.metrics.column.{name}": "counts" for name in dates}
