"""The catalog of a URL, and the errors of catalogs as ours.

iceberg://NAME                                   as pyiceberg's own configuration (~/.pyiceberg.yaml, PYICEBERG_*) says
iceberg+https://host/path?warehouse=...          a REST catalog; every parameter is a property of the catalog
iceberg+sqlite:////folder/catalog.db?warehouse=file:///folder
iceberg+postgresql://user@host/db?warehouse=...  an SQL catalog; what libpq calls so (sslmode, host) is the connection's
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyiceberg.exceptions as refused
from pyiceberg.catalog import Catalog, load_catalog

from corpuscore.addresses import redacted, shown
from corpuscore.errors import WarehouseBusy, WarehouseError, WarehouseUnavailable

_TYPES = {"http": "rest", "https": "rest", "rest": "rest", "sqlite": "sql", "postgresql": "sql"}
#: Parameters of libpq, https://www.postgresql.org/docs/current/libpq-connect.html; a catalog has none of these names.
_OF_CONNECTIONS = {"host", "hostaddr", "port", "passfile", "connect_timeout", "application_name", "options"} | {
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "target_session_attrs",
}
_RULE = "a catalog is iceberg://NAME, iceberg+https://HOST/PATH, or iceberg+sqlite:///FILE?warehouse=URI"


def open_catalog(url: str) -> Catalog:
    """The catalog that a URL names.

    Raises:
        WarehouseError: It names none, or pyiceberg knows no such catalog.
        WarehouseUnavailable: It does not answer.
    """
    name, properties = parsed(url)
    if properties.get("uri", "").startswith("postgresql") and find_spec("psycopg") is None:
        raise WarehouseError(
            f"{shown(url)}: the driver of its database is missing (no module psycopg)",
            next_step="pip install 'corpuscore[iceberg-postgresql]'",
        )
    with catalog_errors(url):
        return load_catalog(name, **properties)


def parsed(url: str) -> tuple[str, dict[str, str]]:
    """Name and properties of the catalog that a URL names.

    Raises:
        WarehouseError: It names none.
    """
    parts = urlsplit(url)
    properties = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "iceberg" and parts.netloc and not parts.path.strip("/"):
        return parts.netloc, properties
    how = parts.scheme.partition("+")[2]
    if how not in _TYPES or not (parts.netloc or parts.path.strip("/")):
        raise WarehouseError(f"{shown(url)} names no Iceberg catalog", rule=_RULE)
    place = parts._replace(scheme="https" if how == "rest" else how, query="", fragment="").geturl()
    if how == "sqlite":
        place = f"sqlite:///{parts.path[1:]}"  # geturl() leaves slashes out
    elif how == "postgresql":
        asked = {key: properties.pop(key) for key in sorted(_OF_CONNECTIONS & properties.keys())}
        place = f"postgresql+psycopg{place.removeprefix(how)}" + (f"?{urlencode(asked)}" if asked else "")
    return properties.pop("name", "default"), {"type": _TYPES[how], "uri": place, **properties}


_OUTAGES = (
    refused.CommitStateUnknownException,
    refused.ServiceUnavailableError,
    refused.ServerError,
    refused.TooManyRequestsError,
    refused.WaitingForLockException,
)
_REFUSALS = (
    refused.UnauthorizedError,
    refused.ForbiddenError,
    refused.AuthorizationExpiredError,
    refused.OAuthError,
    refused.BadRequestError,
    refused.RESTError,
    refused.NotInstalledError,
    refused.ValidationError,
    refused.ValidationException,
    refused.NoSuchPropertyException,
    refused.SignError,
    refused.ResolveError,
)


@contextmanager
def catalog_errors(url: str) -> Iterator[None]:
    """Raise what a catalog, or the store of its tables, says as an error of ours."""
    try:
        yield
    except _OUTAGES as error:
        raise WarehouseUnavailable(_said(url, error), next_step="check the catalog, then rerun") from error
    except _REFUSALS as error:
        raise WarehouseError(_said(url, error), next_step="check the catalog's address, login and rights") from error
    except (OSError, ValueError) as error:  # the store's; pyiceberg's own for what it cannot read
        if _is_outage(error):
            raise WarehouseUnavailable(_said(url, error), next_step="check the network, then rerun") from error
        raise WarehouseError(_said(url, error), next_step="check the catalog's properties and its warehouse") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "sqlalchemy":
            raise
        if _is_made_meanwhile(error):
            raise WarehouseBusy(
                _said(url, error), next_step="rerun: another writer has made the same meanwhile"
            ) from error
        if type(error).__name__ == "OperationalError" and "unable to open" not in str(error):
            raise WarehouseUnavailable(_said(url, error), next_step="check that database, then rerun") from error
        raise WarehouseError(_said(url, error), next_step="check the catalog's database") from error


def _is_outage(error: Exception) -> bool:
    """Whether it is an error of the network: those of requests are OSErrors too, and so are timeouts."""
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("requests")


def _is_made_meanwhile(error: Exception) -> bool:
    """Whether a row or table of an SQL catalog was not there when it was asked for, and was when it was to be made."""
    if type(error).__name__ == "IntegrityError":
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", "")
    return state == "42P07" or "already exists" in str(error)  # PostgreSQL's code, SQLite's words


def _said(url: str, error: Any) -> str:
    first = str(error).strip().partition("\n")[0][:500] or type(error).__name__
    return f"{shown(url)}: {redacted(first, url)}"
