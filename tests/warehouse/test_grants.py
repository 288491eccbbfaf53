"""A role with the smallest grants of docs/permissions.md can do all that a run does; without one, its name is told."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest

from corpuscore.errors import WarehouseError
from corpuscore.records import CheckedPart
from corpuscore.warehouse import Counts, RunRow, Warehouse, load_parts, open_warehouse, remove_objects
from corpuscore.warehouse.libpq.grants import NEEDED
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.postgresql import as_user, run

LATER = PLANNED_AT + timedelta(minutes=1)
PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"


@dataclass(frozen=True)
class Site:
    """A schema with the tables of an administrator, and a role that loads into them.

    Attributes:
        admin: URL of the superuser.
        url: URL of the role.
        schema, role: Their names.
    """

    admin: str
    url: str
    schema: str
    role: str

    def grant(self, *statements: str) -> None:
        """Run statements of docs/permissions.md, with this schema and role in them."""
        run(
            self.admin,
            *(text.replace("analytics", self.schema).replace("corpuscore", self.role) for text in statements),
        )

    def open(self) -> Warehouse:
        """Open the warehouse as the role."""
        return open_warehouse(self.url, f"{self.schema}.scores")


@pytest.fixture
def site(postgresql: str) -> Iterator[Site]:
    """A schema and a role without any right in it."""
    name = uuid.uuid4().hex[:8]
    site = Site(postgresql, as_user(postgresql, f"role_{name}"), f"schema_{name}", f"role_{name}")
    run(postgresql, f"CREATE SCHEMA {site.schema}", f"CREATE ROLE {site.role} LOGIN")
    yield site
    run(postgresql, f"DROP SCHEMA {site.schema} CASCADE", f"DROP OWNED BY {site.role}", f"DROP ROLE {site.role}")


def statements(heading: str) -> list[str]:
    """The SQL under a heading of the page."""
    section = PAGE.read_text().partition(f"### {heading}\n")[2]
    block = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    assert block, heading
    return [text.strip() for text in block.group(1).split(";") if text.strip()]


def use(warehouse: Warehouse, parts: list[CheckedPart]) -> None:
    """All that a run does with a warehouse."""
    warehouse.check(LABELS, KEPT.names)
    warehouse.prepare(LABELS, KEPT)
    load_parts(warehouse, "run", "model", LABELS, KEPT, parts, opened, planned_at=PLANNED_AT)
    load_parts(warehouse, "run", "model", LABELS, KEPT, parts, opened, planned_at=LATER)
    assert warehouse.count([part.work_id for part in parts]) == Counts(7, 1)
    warehouse.record_run(RunRow("run", "model", "done", PLANNED_AT))
    assert [row.run_id for row in warehouse.runs()] == ["run"]
    assert warehouse.changed_at("run") is not None
    assert warehouse.summary(LABELS).scored == 7
    assert remove_objects(warehouse, "run", "model", ["a"], LATER + timedelta(minutes=1)) == 8


@pytest.fixture
def parts(tmp_path: Path) -> list[CheckedPart]:
    """A part with scores and a reject."""
    return [PartMaker(tmp_path).checked("w1", "a", 7, 1)]


def test_a_role_that_makes_its_tables(site: Site, parts: list[CheckedPart]) -> None:
    """USAGE and CREATE on the schema are enough; the tables are its own."""
    site.grant(*statements("A role that makes its tables"))
    with site.open() as warehouse:
        use(warehouse, parts)


def test_a_role_that_uses_tables_that_are_there(site: Site, parts: list[CheckedPart]) -> None:
    """The grants on the four tables are enough, and they are those that the check asks for."""
    with open_warehouse(site.admin, f"{site.schema}.scores") as warehouse:
        warehouse.prepare(LABELS, KEPT)
    site.grant(*statements("A role that uses tables that are there"))
    with site.open() as warehouse:
        use(warehouse, parts)


@pytest.mark.parametrize(("table", "privilege"), [(table, name) for table, names in NEEDED.items() for name in names])
def test_a_grant_that_is_missing_is_named(site: Site, parts: list[CheckedPart], table: str, privilege: str) -> None:
    """Before the run, by the check; and where it is revoked in the middle, by the call that needs it."""
    with open_warehouse(site.admin, f"{site.schema}.scores") as warehouse:
        warehouse.prepare(LABELS, KEPT)
    site.grant(*statements("A role that uses tables that are there"))
    name = f"{site.schema}.scores{'' if table == 'scores' else f'_{table}'}"
    site.grant(f"REVOKE {privilege} ON {name} FROM corpuscore")
    with site.open() as warehouse:
        with pytest.raises(WarehouseError, match=f"lacks {privilege} on table {name}"):
            warehouse.check(LABELS, KEPT.names)
        warehouse.check = lambda *_: None  # type: ignore[method-assign]
        with pytest.raises(WarehouseError, match=f"permission denied .*grant this user (DELETE and )?{privilege}"):
            use(warehouse, parts)


@pytest.mark.parametrize(("privilege", "words"), [("CREATE", "lacks CREATE on schema"), ("USAGE", "USAGE on it")])
def test_a_right_on_the_schema_that_is_missing_is_named(site: Site, privilege: str, words: str) -> None:
    """Of a role that makes its tables."""
    site.grant(*statements("A role that makes its tables"))
    site.grant(f"REVOKE {privilege} ON SCHEMA analytics FROM corpuscore")
    with site.open() as warehouse:
        with pytest.raises(WarehouseError, match=words):
            warehouse.check(LABELS, KEPT.names)
        with pytest.raises(WarehouseError, match=f"grant this user {privilege} on it"):
            warehouse.prepare(LABELS, KEPT)


def test_a_schema_that_a_role_may_not_make(site: Site, parts: list[CheckedPart]) -> None:
    """The check says so, with the statement for somebody else, which is enough."""
    schema = f"made_{site.role}"
    with open_warehouse(site.url, f"{schema}.scores") as warehouse:
        statement = f'CREATE SCHEMA "{schema}" AUTHORIZATION {site.role}'
        with pytest.raises(WarehouseError, match=re.escape(statement)):
            warehouse.check(LABELS, KEPT.names)
        run(site.admin, statement)
        use(warehouse, parts)


def test_a_role_that_may_make_schemas(site: Site, parts: list[CheckedPart]) -> None:
    """CREATE on the database is enough: the schema is its own."""
    database = urlsplit(site.admin).path.strip("/")
    run(site.admin, f'GRANT CREATE ON DATABASE "{database}" TO {site.role}')
    with open_warehouse(site.url, f"made_{site.role}.scores") as warehouse:
        use(warehouse, parts)


def test_rights_that_are_revoked_in_the_middle_of_a_load(site: Site, parts: list[CheckedPart]) -> None:
    """The transaction is rolled back, the error names the grant, and with the grant the load goes on from there."""
    site.grant(*statements("A role that makes its tables"))
    revoked = iter([True])

    def revoking(path: str) -> BinaryIO:
        if next(revoked, False):
            site.grant("REVOKE INSERT ON analytics.scores_ledger FROM corpuscore")
        return opened(path)

    with site.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
        with pytest.raises(WarehouseError, match="scores_ledger.*grant this user INSERT on it"):
            load_parts(warehouse, "run", "model", LABELS, KEPT, parts, revoking, planned_at=PLANNED_AT)
        assert warehouse.count(["w1"]) == Counts(0, 0)
        site.grant("GRANT INSERT ON analytics.scores_ledger TO corpuscore")
        use(warehouse, parts)
