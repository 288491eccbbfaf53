"""One small object that several writers swap: each puts its own in place of exactly the one that it has read.

A folder has a lock file beside the object (flock, which NFS 4 has too); S3 has conditional writes.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpuscore.errors import StorageError
from corpuscore.files import write_whole
from corpuscore.storage.entries import find_entry
from corpuscore.storage.locations import filesystem, scheme_of
from corpuscore.storage.refusals import error_code, translated
from corpuscore.storage.store import Store

_OTHERS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "NoSuchKey"})


@dataclass(frozen=True, slots=True)
class Pointed:
    """What a pointer held when it was read.

    Attributes:
        body: Its bytes.
        etag: Its version, no newer than the body; empty in a folder, where the bytes are compared.
    """

    body: bytes
    etag: str


class Pointer:
    """An object of a folder or of an S3 bucket, whose every body is another (it holds a unique name).

    Raises:
        StorageError: The location is neither.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._uri = store.uri_of(key)
        self._is_local = scheme_of(store.uri) == "file"
        if not self._is_local and scheme_of(store.uri) != "s3":
            raise StorageError(
                f"{store.uri} is neither a folder nor in S3",
                rule="several writers need a lock, or conditional writes",
                next_step="name a folder, or s3://bucket/prefix",
            )

    def read(self) -> Pointed | None:
        """What it holds; None where it is not there."""
        if self._is_local:
            body = self._store.read_if_there(self._key)
            return None if body is None else Pointed(body, "")
        entry = find_entry(self._uri)  # asked first: where it is swapped in between, the swap after this fails
        body = self._store.read_if_there(self._key) if entry else None
        return None if entry is None or body is None else Pointed(body, entry.etag)

    def swap(self, seen: Pointed | None, body: bytes) -> bool:
        """Put a body in place of the one that was seen; False where another is there by now.

        Args:
            seen: What read() returned.
            body: One that nobody has written before.
        """
        with translated(f"swap {self._uri}"):
            return self._swap_file(seen, body) if self._is_local else self._swap_object(seen, body)

    def check(self) -> None:
        """Try out whether the store compares before it writes.

        Raises:
            StorageError: It does not, so that one of two writers would be lost.
        """
        if self._is_local:
            return
        trial = Pointer(self._store, f"{self._key}.{uuid.uuid4().hex}")
        try:
            if not trial.swap(None, b"first") or trial.swap(None, b"second") or trial.swap(Pointed(b"", "0"), b"third"):
                raise StorageError(
                    f"{self._store.uri}: the store does not know conditional writes (If-None-Match, If-Match)",
                    rule="of two writers, one has to be told that the other was quicker",
                    next_step="choose another store, or another kind of warehouse",
                )
        finally:
            self._store.delete([trial._key])

    def _swap_file(self, seen: Pointed | None, body: bytes) -> bool:
        _, name = filesystem(self._uri)
        path = Path(name)
        with _locked(path.with_name(f".{path.name}.lock")):
            if (path.read_bytes() if path.exists() else None) != (seen.body if seen else None):
                return False
            write_whole(path, body)
        return True

    def _swap_object(self, seen: Pointed | None, body: bytes) -> bool:
        store, path = filesystem(self._uri)
        bucket, _, key = path.partition("/")
        condition = {"IfMatch": f'"{seen.etag}"'} if seen else {"IfNoneMatch": "*"}
        try:
            store.call_s3("put_object", Bucket=bucket, Key=key, Body=body, **condition)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and error_code(error) not in _OTHERS:
                raise
            return self._store.read_if_there(self._key) == body  # one's own, where a first answer was lost
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
