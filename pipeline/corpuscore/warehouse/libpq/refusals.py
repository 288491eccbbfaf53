"""What PostgreSQL and its client library refuse, as errors of ours.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

import adbc_driver_manager

from corpuscore.errors import CorpuscoreError, WarehouseBusy, WarehouseError, WarehouseUnavailable
from corpuscore.warehouse.libpq.address import Address
from corpuscore.warehouse.libpq.grants import lacking

#: SQLSTATE (or its class, two characters) -> may it pass later, and what to do next.
SQLSTATES: dict[str, tuple[bool, str]] = {
    "08": (True, "check that the server is up, then rerun"),
    "22": (False, "this is a defect of corpuscore or of the table: report it with this message"),
    "23": (False, "the table has a constraint or a trigger of its own: drop it, or give another --table"),
    "25P03": (True, "rerun: the server ended a transaction that had waited too long for its client"),
    "25006": (False, "connect to the primary: this database only reads"),
    "28": (False, "check the user and the password (PGPASSWORD), and the server's pg_hba.conf"),
    "3D000": (False, "check the database's name, or create it"),
    "3F000": (False, "create the schema (CREATE SCHEMA), or correct --table"),
    "40001": (True, "rerun: another transaction wrote at the same time"),
    "40P01": (True, "rerun: two transactions waited for each other"),
    "40003": (True, "rerun: it is not known whether the transaction was committed"),
    "42P06": (True, "rerun: another session has made the schema meanwhile"),
    "42P07": (True, "rerun: another session has made the table meanwhile"),
    "42501": (False, "grant this user CREATE on the schema and all on the tables"),
    "53100": (False, "the server's disk is full: free space on it"),
    "53200": (True, "the server is short of memory: rerun"),
    "53300": (True, "the server has too many connections: rerun when there are fewer"),
    "55P03": (True, "wait until that session ends its transaction, or end it (pg_terminate_backend); then rerun"),
    "57014": (False, "raise statement_timeout for this user"),
    "57P01": (True, "the server is being restarted: rerun"),
    "57P02": (True, "the server is being restarted: rerun"),
    "57P03": (True, "the server is starting up: rerun"),
    "57P05": (True, "rerun: the server closed an idle connection"),
    "58": (False, "the server's disk fails: see its log"),
    "XX": (False, "see the server's log"),
}
_LOCKED, _DENIED, _DUPLICATE = "55P03", "42501", "23505"
#: What a duplicate in PostgreSQL's own tables is named by: two sessions made the same schema or table.
_OF_CATALOG = re.compile(r"\bpg_\w+_index\b")
_UNKNOWN_STATE = (False, "look the SQLSTATE up in PostgreSQL's documentation")


def translated(
    error: adbc_driver_manager.Error, address: Address, blockers: str = "", statement: str = ""
) -> CorpuscoreError:
    """An error of a statement as one of ours, by SQLSTATE; without one, the connection was lost.

    Args:
        error: The driver's.
        address: Of the server.
        blockers: Who holds the lock that the statement waited for, in words.
        statement: The one that failed, as far as it is known.
    """
    state = error.sqlstate
    if state is None and error.status_code == adbc_driver_manager.AdbcStatusCode.IO:
        transient, next_step = SQLSTATES["08"]
    else:
        transient, next_step = SQLSTATES.get(state or "", SQLSTATES.get((state or "")[:2], _UNKNOWN_STATE))
    if state == _DUPLICATE and _OF_CATALOG.search(str(error)):
        transient, next_step = SQLSTATES["42P06"]
    kind: type[CorpuscoreError] = WarehouseUnavailable if transient else WarehouseError
    text = address.redacted(_one_line(error))
    if state == _DENIED and statement:
        next_step = f"grant this user {lacking(statement, text)} on it; docs/permissions.md lists what a load needs"
    if state == _LOCKED:
        kind, text = WarehouseBusy, f"a lock is held by {blockers or 'another session'}"
    return kind(f"{address.shown}: {text}", next_step=next_step)


#: libpq gives no SQLSTATE for a connection that fails, only words: the server's (which may be in its own language; then
#: the failure counts as permanent) and strerror's. The first phrase that is found decides.
_REFUSALS: tuple[tuple[str, bool, str], ...] = (
    ("authentication failed", *SQLSTATES["28"]),
    ("no password supplied", *SQLSTATES["28"]),
    ("pg_hba.conf", *SQLSTATES["28"]),
    ("not permitted to log in", *SQLSTATES["28"]),
    ("role ", *SQLSTATES["28"]),
    ("database ", *SQLSTATES["3D000"]),
)
_OUTAGES = (
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "timeout expired",
    "No such file or directory",
    "No route to host",
    "Network is unreachable",
    "could not translate host name",
    "closed the connection unexpectedly",
    "starting up",
    "accepting connections",
    "shutting down",
    "recovery mode",
    "too many clients",
    "connection slots",
)


def connecting_error(error: adbc_driver_manager.Error, address: Address) -> CorpuscoreError:
    """Why a connection could not be made, as one of ours."""
    text = _one_line(error)
    message = f"{address.shown}: {address.redacted(text)}"
    if any(phrase in text for phrase in _OUTAGES) and "authentication failed" not in text:
        return WarehouseUnavailable(message, next_step="check host and port, and that the server is up; then rerun")
    for phrase, _, next_step in _REFUSALS:
        if phrase in text:
            return WarehouseError(message, next_step=next_step)
    return WarehouseError(message, next_step="check the URL: postgresql://user@host:port/database")


def _one_line(error: adbc_driver_manager.Error) -> str:
    """The driver's message without its own prefixes and without the statement."""
    text = str(error).partition("\nQuery was:")[0].partition("[libpq] ")
    return " ".join((text[2] or text[0]).split())


_FULL = ("too many clients", "connection slots")


def has_answered(error: adbc_driver_manager.Error, address: Address) -> bool:
    """Whether an error of connecting, or of a statement, shows that there is a server which answers."""
    text = _one_line(error)
    if error.sqlstate is not None or any(phrase in text for phrase in _FULL):
        return True
    return isinstance(connecting_error(error, address), WarehouseError)
