"""An object opened at the version that was planned, and read in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpuscore.corpus.formats import compression_of
from corpuscore.corpus.thrift import Malformed
from corpuscore.errors import CorpusError, ObjectChanged
from corpuscore.storage import filesystem, find_entry, translated
from corpuscore.storage.entries import local_etag
from corpuscore.storage.refusals import error_code

BLOCK = 2**20  # bytes of one read from a file
REMOTE_BLOCK = 4 * 2**20  # bytes of one request
TAIL_BLOCK = 2**16  # bytes of one read past the end of a range: the rest of one record


class PlannedObject:
    """One object at one version; reading another version is ObjectChanged.

    A file's ETag is compared when it is opened and once it was read. s3fs sends the ETag of the opened object with
    every request (If-Match), so that one comparison is enough there.
    """

    def __init__(self, uri: str, etag: str, anonymous: bool = False) -> None:
        self.uri = uri
        self.etag = etag
        self._anonymous = anonymous
        self._is_local = uri.startswith("file://")
        self._plain: Any = None

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The object as a seekable binary file.

        Raises:
            ObjectChanged: The object is not the planned one.
            StorageError, StorageUnavailable: The store refuses, or does not answer.
        """
        store, path = filesystem(self.uri, self._anonymous)
        with self.translated():
            try:
                file = Path(path).open("rb") if self._is_local else store.open(path, "rb")  # noqa: SIM115 (closed below)
            except FileNotFoundError:
                raise self._changed("gone") from None
        with file:
            self.verify(file)
            yield file

    def verify(self, file: Any) -> None:
        """Raise where an open file is not the planned version, or not any more.

        Raises:
            ObjectChanged: Another ETag, or gone.
        """
        if self._is_local:
            found = local_etag(os.fstat(file.fileno()))
        elif "ETag" in getattr(file, "details", {}):
            found = file.details["ETag"].strip('"')
        else:
            entry = find_entry(self.uri, self._anonymous)
            found = entry.etag if entry else "gone"
        if found != self.etag:
            raise self._changed(found)

    def blocks(self, file: Any, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The plain bytes from start to the end of the object, in blocks that meet stop and go on small behind it.

        Only a plain object can be read from elsewhere than its start; .gz and .zst are decompressed on the way.
        """
        compression = compression_of(self.uri)
        if compression:
            # Held: Arrow closes the file of a stream that nobody holds, and `verify` comes after the last block.
            file = self._plain = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)
        else:
            file.seek(start)
        size = BLOCK if self._is_local or compression else REMOTE_BLOCK
        at, end = start, stop or 2**62
        while block := file.read(min(size, end - at) if at < end else TAIL_BLOCK):
            yield block
            at += len(block)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Let a block raise errors of ours only, where this object or its store is to blame."""
        with translated(f"read {self.uri}"):
            try:
                yield
            except (pa.ArrowException, Malformed, UnicodeDecodeError) as error:  # the last for names of columns
                raise self.corrupt(error) from error
            except OSError as error:
                if _is_expired(error):
                    raise self._changed("another ETag") from error
                if _is_arrows(error):
                    raise self.corrupt(error) from error
                raise

    def corrupt(self, reason: object) -> CorpusError:
        """The error that says: this object as a whole cannot be read."""
        return CorpusError(
            f"{self.uri} cannot be read: {' '.join(str(reason).split())[:300]}",
            rule="an object is whole, and of the format that its name or the format option says",
            next_step="write it again, or leave it out of the corpus",
        )

    def _changed(self, found: str) -> ObjectChanged:
        return ObjectChanged(
            f"{self.uri} was planned with ETag {self.etag} and is now {found}",
            rule="a run reads the objects that it planned",
            next_step="plan again: only what changed is scored",
        )


def _is_expired(error: OSError) -> bool:
    """s3fs's FileExpired, or a store that says a failed If-Match in other words."""
    return type(error).__name__ == "FileExpired" or error_code(error) in {"PreconditionFailed", "412"}


def _is_arrows(error: OSError) -> bool:
    """Arrow raises plain OSError, without a number, for corrupt pages and compressed streams."""
    return error.errno is None and not error_code(error) and type(error) is OSError
