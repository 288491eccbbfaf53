"""JSON documents in the work location, sealed: each carries a digest of its key and its content.

    {"rows": 3, ..., "seal": "sha256:5e88..."}

So reading tells damaged from missing, and one that lies under another's key is damaged, too. Documents of older
versions have no seal and are read all the same, as far as they hold what is expected of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson

from corpuscore.errors import DamagedDocument
from corpuscore.records import digest
from corpuscore.storage.store import Store, concurrently

_Document = TypeVar("_Document")

#: Takes a document's content for what it should be; raises ValueError, KeyError, TypeError or AttributeError otherwise.
Parse = Callable[[Any], _Document]

_SEAL = "seal"
_KIND = "sha256:"


def sealed(key: str, content: Mapping[str, Any]) -> bytes:
    """The bytes of a document that is to lie under a key."""
    plain = orjson.loads(orjson.dumps(content))  # as it will be read: NaN is null, a tuple is a list
    return orjson.dumps({**plain, _SEAL: _seal(key, plain)}, option=orjson.OPT_INDENT_2)


def _seal(key: str, content: Any) -> str:
    return _KIND + digest([key, content])


def write_document(store: Store, key: str, content: Mapping[str, Any]) -> None:
    """Put a document in place of whatever is there."""
    store.write(key, sealed(key, content))


def read_document(store: Store, key: str, parse: Parse[_Document]) -> _Document | None:
    """A document; None where none is there.

    Args:
        store: The work location.
        key: In it.
        parse: Of its content.

    Raises:
        DamagedDocument: What lies there is not what was written, as two requests say.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    try:
        return _read(store, key, parse)
    except DamagedDocument:  # or its bytes were, on their way
        return _read(store, key, parse)


def _read(store: Store, key: str, parse: Parse[_Document]) -> _Document | None:
    body = store.read_if_there(key)
    if body is None:
        return None
    try:
        return parse(_unsealed(key, body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedDocument(
            f"The document {store.uri_of(key)} is damaged: {_reason(error)}",
            rule="A document holds what was written, under the key under which it was",
            next_step="run the same again: what it says is made again",
        ) from error


def _unsealed(key: str, body: bytes) -> Any:
    if not body:
        raise ValueError("it is empty")
    content = orjson.loads(body)
    if isinstance(content, dict) and _SEAL in content:
        seal = content.pop(_SEAL)
        if seal != _seal(key, content):
            raise ValueError(f"its content or its key is not the one of its seal, {str(seal)[:80]}")
    elif _SEAL.encode() in body or _KIND.encode() in body:
        raise ValueError("its seal is damaged")
    return content


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{said} is missing" if isinstance(error, KeyError) else said or type(error).__name__


def read_documents(
    store: Store, parse_by_key: Mapping[str, Parse[_Document]]
) -> tuple[dict[str, _Document], dict[str, DamagedDocument]]:
    """Many documents, read concurrently; those that are missing are left out.

    Args:
        store: The work location.
        parse_by_key: What each should be.

    Returns:
        The documents by key, and what is wrong with those that are damaged.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    found: dict[str, _Document] = {}
    damaged: dict[str, DamagedDocument] = {}
    for key, document in _read_all(store, parse_by_key):
        if isinstance(document, DamagedDocument):
            damaged[key] = document
        elif document is not None:
            found[key] = document
    return found, damaged


def _read_all(
    store: Store, parse_by_key: Mapping[str, Parse[_Document]]
) -> Iterable[tuple[str, _Document | DamagedDocument | None]]:
    def read(key: str) -> _Document | DamagedDocument | None:
        try:
            return read_document(store, key, parse_by_key[key])
        except DamagedDocument as error:
            return error

    keys = list(parse_by_key)
    return zip(keys, concurrently(read, keys), strict=True)
