"""Kept columns over all objects of a corpus: one type for each, found before anything is scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from corpuscore.corpus.formats import missing_columns
from corpuscore.corpus.listing import CorpusObject
from corpuscore.errors import CorpusError
from corpuscore.kinds import table_schema, widened
from corpuscore.naming import Column
from corpuscore.options import ReadOptions

#: Integers up to here are floating point numbers, too.
EXACT = 2**53


@dataclass(frozen=True, slots=True)
class KeptHere:
    """The kept columns of one object.

    Attributes:
        item: The object.
        kinds: Their types, by their names in the table; null where they are missing.
        names: What the object has, for messages.
        missing: Paths of those that are missing.
    """

    item: CorpusObject
    kinds: Mapping[str, pa.DataType]
    names: Sequence[str] = ()
    missing: Sequence[str] = ()


class _Held(NamedTuple):
    """The type of a kept column in the objects so far, and the first one with this type."""

    kind: pa.DataType
    item: CorpusObject


@dataclass(slots=True)
class KeptColumns:
    """What objects say of kept columns, as a plan comes to them.

    Attributes:
        reading: Which columns.
    """

    reading: ReadOptions
    _held: dict[str, _Held] = field(default_factory=dict)
    _integers: dict[str, list[CorpusObject]] = field(default_factory=dict)  # where a column is of 64-bit integers
    _lacking: KeptHere | None = None
    _found: set[str] = field(default_factory=set)

    def add(self, here: KeptHere) -> None:
        """Widen the types to those of one more object.

        Raises:
            CorpusError: No type holds the values of both.
        """
        for column in self.reading.kept:
            kind = here.kinds[column.name]
            before = self._held.setdefault(column.name, _Held(kind, here.item))
            both = widened(before.kind, kind)
            if both is None:
                raise self._conflict(column, here.item, kind, "JSON and CSV are text")
            if both != before.kind:
                self._held[column.name] = _Held(both, here.item)
            if kind == pa.int64():
                self._integers.setdefault(column.name, []).append(here.item)
        self._found.update(column.path for column in self.reading.kept if column.path not in here.missing)
        if here.missing and self._lacking is None:
            self._lacking = here

    def _conflict(self, column: Column, item: CorpusObject, kind: pa.DataType, why: str) -> CorpusError:
        held = self._held[column.name]
        return CorpusError(
            f"{item.uri}: the kept column {column.path!r} has the type {kind}, in {held.item.uri} it has {held.kind}",
            rule="a kept column is of one type in the table, or of some of which one holds the values of all: integers "
            f"and decimals, floating point and integers up to 2**53, nulls with anything; {why}",
            next_step="make the types equal in the corpus, or do not keep the column",
        )

    def doubtful(self) -> list[tuple[Column, CorpusObject]]:
        """Columns that became floating point, with each object in which they are integers."""
        return [
            (column, item)
            for column in self.reading.kept
            if column.name in self._held and pa.types.is_floating(self._held[column.name].kind)
            for item in self._integers.get(column.name, ())
        ]

    def check(self, bounds: Iterable[tuple[int, int] | None]) -> None:
        """Raise, once all objects were added, where a column is nowhere, or its integers are too large.

        Args:
            bounds: The smallest and the largest integer of each of `doubtful`; None where nothing says.

        Raises:
            CorpusError: Naming the first such object.
        """
        if self._lacking and (nowhere := [path for path in self._lacking.missing if path not in self._found]):
            raise missing_columns(self._lacking.item.uri, self.reading, nowhere, list(self._lacking.names))
        for (column, item), found in zip(self.doubtful(), bounds, strict=True):
            if found is None or not -EXACT <= found[0] <= found[1] <= EXACT:
                raise self._conflict(column, item, pa.int64(), "here are larger ones, or the footer does not say")

    @property
    def schema(self) -> pa.Schema:
        """The kept columns of the table, once all objects were added."""
        kinds = {name: held.kind for name, held in self._held.items()}
        return table_schema({name: kinds.get(name, pa.null()) for name in self.reading.kept_names})
