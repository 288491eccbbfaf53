"""Names of tables and columns in SQL. Every identifier goes through `quoted`; values never stand in a statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


def quoted(name: str) -> str:
    """An SQL identifier for any name."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class TableName:
    """A table, in a schema where one is named, of a database where that has to be said."""

    schema: str | None
    name: str
    database: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From NAME or SCHEMA.NAME."""
        schema, _, name = text.rpartition(".")
        return cls(schema or None, name)

    def beside(self, suffix: str) -> TableName:
        """The table of the same schema with a suffix."""
        return TableName(self.schema, f"{self.name}_{suffix}", self.database)

    @property
    def sql(self) -> str:
        """As an SQL identifier."""
        return ".".join(quoted(part) for part in (self.database, self.schema, self.name) if part)

    @property
    def schema_sql(self) -> str:
        """Its schema as an SQL identifier; empty where none is named."""
        return ".".join(quoted(part) for part in (self.database, self.schema) if part) if self.schema else ""

    def __str__(self) -> str:
        return ".".join(part for part in (self.schema, self.name) if part)
