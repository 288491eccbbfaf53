"""Kept columns over all objects of a corpus: one type for each, found before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from corpuscore.corpus.formats import missing_columns
from corpuscore.errors import CorpusError
from corpuscore.job import ReadOptions
from corpuscore.kinds import table_schema, widened

#: Integers up to here are floating point numbers, too.
EXACT = 2**53


@dataclass(frozen=True, slots=True)
class KeptHere:
    """The kept columns of one object.

    Attributes:
        uri: The object.
        kinds: Their types, by their names in the table; null where they are missing.
        names: What the object has, for messages.
        missing: Paths of those that are missing.
        large: Names of those that hold, or may hold, integers that are no floating point numbers.
    """

    uri: str
    kinds: Mapping[str, pa.DataType]
    names: Sequence[str] = ()
    missing: Sequence[str] = ()
    large: frozenset[str] = frozenset()


@dataclass(slots=True)
class KeptColumns:
    """What objects say of kept columns, as a plan comes to them.

    Attributes:
        reading: Which columns.
    """

    reading: ReadOptions
    _kinds: dict[str, pa.DataType] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)  # an object that has it, of the type that was there before
    _large: dict[str, str] = field(default_factory=dict)  # an object with such integers
    _lacking: KeptHere | None = None
    _found: set[str] = field(default_factory=set)

    def add(self, here: KeptHere) -> None:
        """Widen the types to those of one more object.

        Raises:
            CorpusError: No type holds the values of both.
        """
        for column in self.reading.kept:
            kind = here.kinds[column.name]
            before = self._kinds.setdefault(column.name, kind)
            both = widened(before, kind)
            if both is None:
                raise self._conflict(column.path, here.uri, kind, self._first[column.name], before)
            if not pa.types.is_null(kind) and (both != before or column.name not in self._first):
                self._first[column.name] = here.uri
            self._kinds[column.name] = both
            if column.name in here.large:
                self._large.setdefault(column.name, here.uri)
            if pa.types.is_floating(both) and column.name in self._large:
                raise self._conflict(column.path, self._large[column.name], pa.int64(), self._first[column.name], both)
        self._found.update(column.path for column in self.reading.kept if column.path not in here.missing)
        if here.missing and self._lacking is None:
            self._lacking = here

    def _conflict(self, path: str, uri: str, kind: pa.DataType, other: str, before: pa.DataType) -> CorpusError:
        large = pa.types.is_floating(before) and kind == pa.int64()
        return CorpusError(
            f"{uri}: the kept column {path!r} has the type {kind}, in {other} it has {before}",
            rule="a kept column is of one type in the table, or of some of which one holds the values of all: integers "
            "and decimals, floating point and integers up to 2**53, nulls with anything"
            + ("; here are larger ones, or the footer does not say" if large else "; JSON and CSV are text"),
            next_step="make the types equal in the corpus, or do not keep the column",
        )

    def check(self) -> None:
        """Raise, once all objects were added, where none that was looked into has one of the columns.

        Raises:
            CorpusError: Naming the first object that lacks it.
        """
        if self._lacking and (nowhere := [path for path in self._lacking.missing if path not in self._found]):
            raise missing_columns(self._lacking.uri, self.reading, nowhere, list(self._lacking.names))

    @property
    def schema(self) -> pa.Schema:
        """The kept columns of the table, once all objects were added."""
        return table_schema({name: self._kinds.get(name, pa.null()) for name in self.reading.kept_names})
