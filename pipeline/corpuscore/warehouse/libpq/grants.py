"""What a role needs, asked before anything is spent; `docs/permissions.md` has it as statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from corpuscore.errors import WarehouseError
from corpuscore.warehouse.names import TableName, quoted

#: Privileges by the role of a table; its own role needs CREATE on the schema instead, where it makes them.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "scores": ("SELECT", "INSERT", "DELETE"),
    "rejects": ("SELECT", "INSERT", "DELETE"),
    "ledger": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "runs": ("SELECT", "INSERT", "DELETE"),
}

_ON_TABLE = (
    "SELECT privilege FROM unnest($2::text[]) AS privilege WHERE NOT has_table_privilege(to_regclass($1), privilege)"
)
_ON_SCHEMA = "SELECT has_schema_privilege(coalesce($1, current_schema()), 'CREATE')"
_ON_DATABASE = "SELECT has_database_privilege(current_database(), 'CREATE'), quote_ident(current_user)"


def check_grants(query: Callable[..., list[tuple[Any, ...]]], tables: Mapping[str, TableName]) -> None:
    """Check that the role may do what a load does.

    Args:
        query: Of an open transaction.
        tables: By role, as in NEEDED.

    Raises:
        WarehouseError: Naming each privilege that is missing, or the schema that this role may not make.
    """
    schema = tables["scores"].schema_sql
    if schema and not query("SELECT to_regnamespace($1) IS NOT NULL", schema)[0][0]:
        _check_database(query, schema)
        return
    missing, creates = [], False
    for role, table in tables.items():
        if not query("SELECT to_regclass($1) IS NOT NULL", table.sql)[0][0]:
            creates = True
            continue
        if names := [name for (name,) in query(_ON_TABLE, table.sql, list(NEEDED[role]))]:
            missing.append(f"{', '.join(names)} on table {table}")
    if creates and not query(_ON_SCHEMA, tables["scores"].schema)[0][0]:
        missing.append(f"CREATE on schema {tables['scores'].schema or 'public'}")
    if missing:
        raise WarehouseError(
            f"This user lacks {'; '.join(missing)}",
            rule="docs/permissions.md lists what a load needs",
            next_step="grant it (GRANT ... TO this user), or name another user",
        )


def _check_database(query: Callable[..., list[tuple[Any, ...]]], schema: str) -> None:
    """Check that the role may make a schema, which then is its own."""
    [(allowed, role)] = query(_ON_DATABASE)
    if not allowed:
        raise WarehouseError(
            f"The schema {schema} is not there, and this user lacks CREATE on the database, which making it needs",
            rule="docs/permissions.md lists what a load needs",
            next_step=f"let the owner of the database run: CREATE SCHEMA {schema} AUTHORIZATION {role}; or correct "
            "--table",
        )


def check_owner(query: Callable[..., list[tuple[Any, ...]]], tables: Sequence[TableName], added: Sequence[str]) -> None:
    """Check that the role may add columns to tables.

    Raises:
        WarehouseError: It is not their owner, with the statements for somebody who is.
    """
    sql = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)"
    others = [table for table in tables if not query(sql, table.sql)[0][0]]
    if others:
        columns = ", ".join(f"ADD COLUMN {quoted(name)} TYPE" for name in added)
        statements = "; ".join(f"ALTER TABLE {table.sql} {columns}" for table in others)
        raise WarehouseError(
            f"Table {others[0]} lacks the kept columns {', '.join(added)}, and this user does not own it",
            rule="Only its owner may add columns to a table",
            next_step=f"let the owner run: {statements}",
        )


def lacking(statement: str, message: str) -> str:
    """The privilege that a statement was refused for: its verb, or what a schema needs for it.

    Args:
        statement: As it was sent.
        message: The server's.
    """
    verb = statement.split(maxsplit=1)[0].upper()
    if verb == "ALTER":
        return "the ownership"  # only an owner may alter a table
    if "schema" in message and verb != "CREATE":
        return "USAGE"
    return f"{verb} and SELECT" if verb in ("DELETE", "UPDATE") else verb  # these read which rows they are about
