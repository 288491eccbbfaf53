"""Where a PostgreSQL database is, and what a connection to it gets unless the URL says otherwise."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, quote, urlsplit

from corpuscore.addresses import is_readable, redacted, shown
from corpuscore.errors import WarehouseError

#: Parameters of libpq -> value, and the variable that may set it in their place. A network that is gone is noticed
#: within a minute, by keepalives where nothing is under way, by tcp_user_timeout where something is.
_DEFAULTS = {
    "connect_timeout": ("10", "PGCONNECT_TIMEOUT"),
    "application_name": ("corpuscore", "PGAPPNAME"),
    "keepalives_idle": ("20", ""),
    "keepalives_interval": ("10", ""),
    "keepalives_count": ("3", ""),
    "tcp_user_timeout": ("60000", ""),
}


class Address:
    """Where a database is, with the password kept out of everything that is shown.

    Attributes:
        shown: Without secrets and parameters, for messages.
        url: For libpq, with the defaults.
        connect_seconds: How long libpq may take to connect, over all hosts.
    """

    def __init__(self, url: str) -> None:
        if not is_readable(url):
            raise WarehouseError(
                "The PostgreSQL URL cannot be read (not shown, it may hold a password)",
                rule="postgresql://user@host:port/database, with / ? # @ : % of a password percent-encoded",
                next_step="leave the password out of the URL and set PGPASSWORD",
            )
        parts = urlsplit(shown(url))
        query = parse_qs(parts.query)
        user, at, host = parts.netloc.rpartition("@")
        self.shown = f"postgresql://{user}{at}{host or ''.join(query.get('host', []))}{parts.path}"
        self.url = _with_defaults(url)
        self.connect_seconds = _connect_seconds(query) * (1 + self.shown.count(","))

    def redacted(self, text: str) -> str:
        """The text without the password, whichever way it got in."""
        return redacted(text, self.url)

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def _with_defaults(url: str) -> str:
    given = parse_qs(urlsplit(url).query, keep_blank_values=True)
    added = [
        f"{name}={quote(value, safe='')}"
        for name, (value, variable) in _DEFAULTS.items()
        if name not in given and variable not in os.environ
    ]
    if not added:
        return url
    return url + ("&" if "?" in url else "?") + "&".join(added)


def _connect_seconds(query: dict[str, list[str]]) -> float:
    said = query.get("connect_timeout", [os.environ.get("PGCONNECT_TIMEOUT", _DEFAULTS["connect_timeout"][0])])[-1]
    return float(said) if said.isdecimal() and int(said) else float("inf")  # libpq's 0 waits as long as the system
