from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.corpus.columns import FIRST_DAY, LAST_DAY, LAST_MICROSECOND
from corpuscore.errors import ValidationFailed, WarehouseError
from corpuscore.records import OWN_COLUMNS, CheckedPart
from corpuscore.warehouse import load_parts
from corpuscore.warehouse.names import TableName, quoted
from corpuscore.warehouse.tables import (
    NameRule,
    check_names,
    differences,
    rejects_schema,
    scores_schema,
    stored_column,
    stored_type,
)
from tests.parts import LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.warehouses import Target, read_scores, read_table

MOMENT = dt.datetime(2024, 2, 29, 12, 30, 1, 5)

#: Arrow type -> value of a kept column, and what the warehouse gives back for it.
KEPT_VALUES: dict[str, tuple[pa.DataType, Any, Any]] = {
    "bool": (pa.bool_(), True, True),
    "int8": (pa.int8(), -8, -8),
    "uint8": (pa.uint8(), 255, 255),
    "int16": (pa.int16(), -1600, -1600),
    "uint16": (pa.uint16(), 65_535, 65_535),
    "int32": (pa.int32(), -(2**31), -(2**31)),
    "uint32": (pa.uint32(), 2**32 - 1, 2**32 - 1),
    "int64": (pa.int64(), 2**63 - 1, 2**63 - 1),
    "uint64": (pa.uint64(), 2**64 - 1, decimal.Decimal(2**64 - 1)),
    "float16": (pa.float16(), 0.5, 0.5),
    "float32": (pa.float32(), 0.25, 0.25),
    "float64": (pa.float64(), 1e300, 1e300),
    "decimal": (pa.decimal128(10, 2), decimal.Decimal("-12345678.90"), decimal.Decimal("-12345678.90")),
    "string": (pa.string(), "Ünï 🙂 'q' \"q\" \\ \n", "Ünï 🙂 'q' \"q\" \\ \n"),
    "large string": (pa.large_string(), "long", "long"),
    "string view": (pa.string_view(), "a view of a text", "a view of a text"),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), "word", "word"),
    "binary": (pa.binary(), b"\x00\xff", b"\x00\xff"),
    "fixed": (pa.binary(2), b"ab", b"ab"),
    "date32": (pa.date32(), MOMENT.date(), MOMENT.date()),
    "date64": (pa.date64(), MOMENT.date(), MOMENT.date()),
    "time": (pa.time32("s"), dt.time(23, 59, 1), dt.time(23, 59, 1)),
    "seconds": (pa.timestamp("s"), MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=0)),
    "nanoseconds": (pa.timestamp("ns"), MOMENT, MOMENT),
    "zoned": (
        pa.timestamp("ms", "Europe/Berlin"),
        MOMENT.replace(tzinfo=dt.UTC, microsecond=0),
        MOMENT.replace(tzinfo=dt.UTC, microsecond=0),
    ),
    "nothing": (pa.null(), None, None),
    "list": (pa.list_(pa.string()), ["a", None], ["a", None]),
    "struct": (pa.struct([("x", pa.int8())]), {"x": 1}, {"x": 1}),
}


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts with a kept column of each type."""
    folder = tmp_path / "parts"
    folder.mkdir()
    return PartMaker(folder, kept=pa.schema([(name, kind) for name, (kind, _, _) in KEPT_VALUES.items()]))


def test_kept_columns_of_every_type_come_back(target: Target, maker: PartMaker) -> None:
    """Values and nulls of all Arrow types that readers yield survive, nested ones as JSON."""
    rows = PartMaker(maker.folder, kept=pa.schema([])).rows("a", 2)
    for at, (name, (kind, value, _)) in enumerate(KEPT_VALUES.items()):
        column = pa.array([value, None], pa.string()).dictionary_encode() if name == "dictionary" else None
        values = pa.array([value, None], kind) if column is None else column.cast(kind)
        rows = rows.add_column(6 + at, pa.field(name, kind), values)
    path, digest = maker.write(rows, "w1")
    kept = pq.read_schema(path)
    kept = pa.schema([kept.field(name) for name in KEPT_VALUES]).remove_metadata()
    with target.open() as warehouse:
        warehouse.prepare(LABELS, kept)
        part = CheckedPart("w1", "a", str(path), digest, 2, 0)
        load_parts(warehouse, "r", "m", LABELS, kept, [part], opened, planned_at=PLANNED_AT)
    there, nulls = sorted(read_scores(target), key=lambda row: row["position"])
    for name, (_, _, expected) in KEPT_VALUES.items():
        assert nulls[name] is None, name
        found = there[name]
        if isinstance(expected, list | dict):
            assert json.loads(found) == expected, name
        elif isinstance(expected, decimal.Decimal):
            assert decimal.Decimal(found) == expected, name
        else:
            assert found == expected, name


def test_parts_of_narrower_types_load_into_a_wider_column(target: Target, tmp_path: Path) -> None:
    """Each value is what it was, whichever of the types that the plan had widened its part has; others are refused."""
    wide = pa.schema([("x", pa.decimal128(20, 1))])
    held = {"a": (pa.int32(), 7), "b": (pa.decimal128(5, 1), decimal.Decimal("1.5")), "c": (pa.null(), None)}
    parts = []
    for uri, (kind, value) in {**held, "d": (pa.float64(), 1.0)}.items():
        maker = PartMaker(tmp_path, kept=pa.schema([("x", kind)]))
        rows = (
            PartMaker(tmp_path, kept=pa.schema([])).rows(uri, 1).add_column(6, maker.kept[0], pa.array([value], kind))
        )
        path, digest = maker.write(rows, uri)
        parts.append(CheckedPart(uri, uri, str(path), digest, 1, 0))
    with target.open() as warehouse:
        warehouse.prepare(LABELS, wide)
        load_parts(warehouse, "r", "m", LABELS, wide, parts[:3], opened, planned_at=PLANNED_AT)
        with pytest.raises(ValidationFailed, match="x double"):
            load_parts(warehouse, "r", "m", LABELS, wide, parts[3:], opened, planned_at=PLANNED_AT)
    found = [row["x"] for row in sorted(read_scores(target), key=lambda row: str(row["document_id"]))]
    assert [value and decimal.Decimal(value) for value in found] == [value for _, value in held.values()]


def test_the_first_and_the_last_date_that_are_kept_are_stored(target: Target, tmp_path: Path) -> None:
    """Beyond them readers reject; so no date stops a load."""
    days = pa.array([FIRST_DAY, LAST_DAY], pa.int32()).view(pa.date32())
    moments = pa.array([FIRST_DAY * 86_400_000_000, LAST_MICROSECOND], pa.int64()).view(pa.timestamp("us"))
    maker = PartMaker(tmp_path, kept=pa.schema([("d", pa.date32()), ("t", pa.timestamp("us"))]))
    rows = PartMaker(tmp_path, kept=pa.schema([])).rows("a", 2)
    rows = rows.add_column(6, maker.kept[0], days).add_column(7, maker.kept[1], moments)
    path, digest = maker.write(rows, "w")
    with target.open() as warehouse:
        warehouse.prepare(LABELS, maker.kept)
        part = CheckedPart("w", "a", str(path), digest, 2, 0)
        load_parts(warehouse, "r", "m", LABELS, maker.kept, [part], opened, planned_at=PLANNED_AT)
    found = read_table(target).sort_by("position")
    assert [value.value for value in found["d"]] == [FIRST_DAY, LAST_DAY]
    assert [value.value for value in found["t"]] == [FIRST_DAY * 86_400_000_000, LAST_MICROSECOND]


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, value, _ in KEPT_VALUES.values()])
def test_a_stored_column_has_the_stored_type(kind: pa.DataType, value: Any) -> None:
    """The table's type and the rows' type are one."""
    text = isinstance(kind, pa.DictionaryType)
    column = pa.array([value], pa.string()).dictionary_encode().cast(kind) if text else pa.array([value, None], kind)
    assert stored_column(column).type == stored_type(kind)


@given(st.text(min_size=1))
def test_quoting_doubles_quotes(name: str) -> None:
    """No name ends its own quotes."""
    text = quoted(name)
    assert text[0] == text[-1] == '"'
    assert text[1:-1].replace('""', "").count('"') == 0
    assert text[1:-1].replace('""', '"') == name


def test_table_names_stand_beside_each_other() -> None:
    """The suffix goes to the table, not to the schema."""
    assert TableName.parse("analytics.scores").beside("runs").sql == '"analytics"."scores_runs"'
    assert str(TableName.parse("scores").beside("ledger")) == "scores_ledger"


def test_differences_are_complete() -> None:
    """Missing, other and extra columns, and nothing where there are none."""
    wanted = {"a": "text", "b": "real", "c": "real"}
    assert differences(wanted, dict(reversed(wanted.items()))) == []
    found = {"a": "text", "b": "text", "d": "real"}
    assert differences(found, wanted) == ["c (real) is missing", "b is text instead of real", "d (real) is extra"]


def test_the_columns_of_the_tables_are_reserved() -> None:
    """Each column of the tables that labels and kept columns stand in is one that these may not be called."""
    nothing = pa.schema([])
    assert {*scores_schema([], nothing).names, *rejects_schema(nothing).names} == set(OWN_COLUMNS)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70)))
def test_names_that_pass_can_stand_in_one_table(names: list[str]) -> None:
    """Whatever check_names lets through is distinct without regard to case, and short enough."""
    try:
        check_names(names, pa.schema([]), NameRule(max_bytes=63, max_columns=1600))
    except WarehouseError:
        return
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(name.encode()) <= 63 for name in names)
    assert not {"status", "work_id", "document_id"} & {name.casefold() for name in names}
