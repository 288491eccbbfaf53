"""An object opened at the version that was planned, and read in blocks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpuscore.corpus.decompressing import HEAD_BYTES, Damaged, compression_in, plain_blocks
from corpuscore.corpus.encodings import UTF8, as_utf8, encoding_in, is_cuttable
from corpuscore.corpus.formats import compression_of
from corpuscore.corpus.thrift import Malformed
from corpuscore.errors import CorpusError, ObjectChanged
from corpuscore.oddities import Oddities
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

    Args:
        uri, etag: Which object, at which version.
        encoding: Of its text.
        oddities: Where it is noted what of the text cannot be decoded.

    Attributes:
        can_be_cut: Whether ranges can be read without what is before them; known once `blocks` was called.
    """

    def __init__(self, uri: str, etag: str, encoding: str = UTF8, oddities: Oddities | None = None) -> None:
        self.uri = uri
        self.etag = etag
        self._encoding = encoding
        self._oddities = oddities or Oddities()
        self._is_local = uri.startswith("file://")
        self.can_be_cut = False

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The object as a seekable binary file.

        Raises:
            ObjectChanged: The object is not the planned one.
            StorageError, StorageUnavailable: The store refuses, or does not answer.
        """
        store, path = filesystem(self.uri)
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
            entry = find_entry(self.uri)
            found = entry.etag if entry else "gone"
        if found != self.etag:
            raise self._changed(found)

    def blocks(self, file: Any, stop: int | None = None) -> Iterator[bytes]:
        """The whole object, decompressed and decoded as far as that is needed, in blocks that meet stop.

        Its first bytes say how it is compressed, whatever its name is: stores may keep that beside the object (as
        Content-Encoding), and not hand it on.
        """
        size = min(BLOCK if self._is_local else REMOTE_BLOCK, stop or REMOTE_BLOCK)
        reader = io.BufferedReader(_Raw(file), size)
        head = reader.peek(HEAD_BYTES)
        compression, named = compression_in(head), compression_of(self.uri)
        self.can_be_cut = not (compression or named) and is_cuttable(encoding_in(head, self._encoding))
        if compression:
            found = plain_blocks(reader, compression)
        elif named and head:
            raise Damaged(f"its name says {named}, and it does not begin so")
        else:
            found = _read(reader, 0, stop, size)
        return as_utf8(found, self._encoding, self.uri, self._oddities)

    def range(self, file: Any, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a plain object from start on, in blocks that meet stop and go on small behind it."""
        file.seek(start)
        return _read(file, start, stop, BLOCK if self._is_local else REMOTE_BLOCK)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Let a block raise errors of ours only, where this object or its store is to blame."""
        with translated(f"read {self.uri}"):
            try:
                yield
            except (
                pa.ArrowException,
                Malformed,
                Damaged,
                UnicodeDecodeError,
            ) as error:  # the last for names of columns
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


class _Raw(io.RawIOBase):
    """An object's file, for a buffer that leaves it open."""

    def __init__(self, file: Any) -> None:
        self._file = file
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        body = self._file.read(len(buffer))
        buffer[: len(body)] = body
        return len(body)


def _read(file: Any, start: int, stop: int | None, size: int) -> Iterator[bytes]:
    at, end = start, stop or 2**62
    while block := file.read(min(size, end - at) if at < end else TAIL_BLOCK):
        yield block
        at += len(block)


def _is_expired(error: OSError) -> bool:
    """s3fs's FileExpired, or a store that says a failed If-Match in other words."""
    return type(error).__name__ == "FileExpired" or error_code(error) in {"PreconditionFailed", "412"}


def _is_arrows(error: OSError) -> bool:
    """Arrow raises plain OSError, without a number, for corrupt pages and compressed streams."""
    return error.errno is None and not error_code(error) and type(error) is OSError
