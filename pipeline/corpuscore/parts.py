"""Reading a part back: the bytes that are used are the bytes that the digest names, or nothing is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.errors import ValidationFailed

#: Opens the file of a part, by its URI, for reading bytes. It raises StorageError or StorageUnavailable.
OpenPart = Callable[[str], AbstractContextManager[BinaryIO]]

_BLOCK_BYTES = 2**20
_IN_MEMORY_BYTES = 64 * 2**20


@contextmanager
def open_checked(open_part: OpenPart, part: str, digest: str) -> Iterator[pq.ParquetFile]:
    """Open a part whose sha256 is `digest`.

    The bytes are copied once (to memory, beyond 64 MiB to a temporary file) and hashed on the way, so that what was
    checked is what is read, and a remote store is asked once for the whole; once more where the bytes are others.

    Raises:
        ValidationFailed: The bytes are others, or no Parquet file.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
        found = _copy(open_part, part, copy)
        if found != digest:  # or the bytes were damaged on their way
            found = _copy(open_part, part, copy)
        if found != digest:
            raise ValidationFailed(
                f"Part {part} has sha256 {found}",
                rule=f"Its receipt says {digest}",
                next_step="rerun: damaged parts are scored again",
            )
        try:
            file = pq.ParquetFile(copy, memory_map=False)
        except pa.ArrowInvalid as error:
            raise ValidationFailed(
                f"Part {part} is no Parquet file ({error})",
                next_step="rerun: damaged parts are scored again",
            ) from error
        with file:
            yield file


def _copy(open_part: OpenPart, part: str, target: IO[bytes]) -> str:
    """Copy a part in place of what `target` holds, rewound; the sha256 of its bytes in hex."""
    sha256 = hashlib.sha256()
    target.seek(0)
    target.truncate()
    with open_part(part) as source:
        while block := source.read(_BLOCK_BYTES):
            sha256.update(block)
            target.write(block)
    target.seek(0)
    return sha256.hexdigest()
