"""Addresses of warehouses, clusters and locations: one rule for the secrets in them.

    postgresql://me:secret@host/db?sslmode=require&sslpassword=x  ->  postgresql://me@host/db?sslmode=require

An address connects as it was given. Whatever else happens to it (a file, a log line, a message, a run id) sees
`shown(address)`: the login's password and the parameters with a secret's name are left out. An address whose secret
cannot be told from the rest, such as one with a slash in its password, is not shown at all.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

#: A parameter whose value is secret, by its name: password, sslpassword, X-Amz-Signature, scram_client_key. What libpq
#: calls passfile and sslkey are names of files.
_SECRET = re.compile(r"(pass(?!file)|pwd|secret|token|credential|sig|(?<!ssl)key)[\w.-]*\s*=", re.IGNORECASE)

#: In the address of a service of models, whose secrets never stand in it: whatever looks like one.
_OF_SERVICES = re.compile(r"auth|bearer|jwt", re.IGNORECASE)

_HOST = r"(?:\[[^]/?#@]*]|[^][/?#@:,]*)(?::\d*)?"
_URL = re.compile(
    r"(?P<scheme>[\w+.-]+://)"
    r"(?P<login>(?P<user>[^/?#@:]*)(?::(?P<password>[^/?#@]*))?@)?"
    rf"(?P<hosts>arn:[^/?#@]*|{_HOST}(?:,{_HOST})*)"  # an S3 access point is named by its ARN
    r"(?P<path>/[^?#]*)?(?:(?P<mark>[?#])(?P<query>.*))?",
    re.DOTALL,
)


def shown(address: str) -> str:
    """The address without its secrets; as it is where it has none, and `***` where it cannot be read."""
    parted = _parted(address)
    return HIDDEN if parted is None else parted[0]


def is_readable(address: str) -> bool:
    """Whether the secrets of an address can be told from the rest of it."""
    return _parted(address) is not None


def redacted(text: str, address: str) -> str:
    """A text, such as a driver's message, without the secrets of an address, percent-encoded or not."""
    parted = _parted(address)
    if parted is None:
        return HIDDEN
    forms = {form for secret in parted[1] for form in (secret, unquote(secret)) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def _parted(address: str) -> tuple[str, list[str]] | None:
    """The address without its secrets, and these as they stand in it; None where they cannot be told apart."""
    url = _URL.fullmatch(address)
    if url is None:  # a path holds no secret; a DSN (`host=db password=x`) and `me:secret@host` do
        suspect = "://" in address or re.match("(?s)(//)?[^/]*:.*@", address) or _SECRET.search(address)
        return None if suspect else (address, [])
    scheme, login, user, password, hosts, path, mark, query = (part or "" for part in url.groups())
    if "@" in path + query and ":" in login + hosts:
        return None  # a / or ? or # in the password ended the login too early
    if ":" in unquote(user):
        return None  # the colon before the password was percent-encoded along with it
    of_service = scheme.lower() in ("grpc://", "grpcs://")
    items = query.split("&")
    secret = [
        item
        for item in items
        if _SECRET.search(unquote(item)) or (of_service and _OF_SERVICES.search(unquote(item.partition("=")[0])))
    ]
    kept = [item for item in items if item not in secret]
    if secret and any("=" not in item for item in kept):
        return None  # a & in the secret ended it too early
    hidden_user = [user] if of_service and user else []
    login = f"{user}@" if login and not of_service else ""
    query = mark + "&".join(kept) if kept else ""
    return scheme + login + hosts + path + query, [password, *hidden_user, *(item.partition("=")[2] for item in secret)]


def is_writable(text: str) -> bool:
    """Whether files, tables and paths can hold a text: it has no NUL, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
