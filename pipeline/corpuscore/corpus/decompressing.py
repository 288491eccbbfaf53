"""Compressed bytes -> plain bytes, in bounded memory; which compression it is, the first bytes say.

Frames (members, streams) one behind another are one object, and zeros behind the last of them are padding, as tapes and
block devices leave it. Everything else behind a frame is an error, and so is a frame that ends early.

What is bounded: the bytes that are made at once, and the memory that a frame may ask for, which is the window of zstd
(WINDOW_BYTES, what `zstd --long=31` writes) and the dictionary of xz (XZ_BYTES).
"""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from corpuscore.corpus.formats import Compression

WINDOW_BYTES = 2**31
XZ_BYTES = 2**28
HEAD_BYTES = 16  # enough to tell a compression
_READ_BYTES = 2**16
_MADE_BYTES = 2**20
_BLOCK_BYTES = 2**18  # as much as a plan looks at
#: 4 bytes of zstd may stand for 128 kB; it is fed so little that no more than some 32 MB come at once.
_ZSTD_READ_BYTES = 2**10
_MOST_LISTED = 2**20  # bytes of a zip's list of members
_LISTED_BESIDE = "__MACOSX/"  # what macOS knows of a file
_ZIP_TAIL = 22 + 2**16  # the end of a zip: its last record, and a comment

_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_SKIPPABLE = bytes.fromhex("2a4d18")  # a frame of zstd that holds none of the data, behind 50 to 5f
_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # behind "BZh" and a digit: a block, or the end


class Damaged(ValueError):
    """Compressed bytes that cannot be read, or would take more memory than they may."""


class Decompressor(Protocol):
    """One frame, as Python's own modules have it."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """What was read beyond its end."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """At most so many plain bytes; what of the data was not needed for them is kept for the next call."""


def compression_in(head: bytes) -> Compression | None:
    """How an object that begins like this is compressed; no text begins so."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[1:4] == _SKIPPABLE and head[0] >> 4 == 5:
        return "zstd"
    return "bzip2" if head[:3] == b"BZh" and head[4:10] in _BZIP2 else None


def plain_blocks(file: Any, compression: Compression) -> Iterator[bytes]:
    """The plain bytes of an object, in blocks of a quarter of a megabyte or more.

    Args:
        file: The object, at its start.
        compression: What it is.

    Raises (when iterated):
        Damaged: It is damaged, ends early, asks for too much memory, or is a zip of other than one file.
    """
    try:
        if compression == "zip":
            yield from _zip_member(file)
        else:
            yield from _gathered(_frames(file, *_FRAMES[compression]))
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile) as error:
        raise Damaged(f"{compression}: {error}") from error
    except (RuntimeError, NotImplementedError, EOFError) as error:  # zipfile's, of passwords, methods and early ends
        raise Damaged(f"{compression}: {error}") from error


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _BLOCK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _frames(file: Any, begin: Callable[[], Decompressor], read_bytes: int) -> Iterator[bytes]:
    data = file.read(read_bytes)
    while data:
        frame = begin()
        while not frame.eof:
            made = frame.decompress(data, _MADE_BYTES)
            if made:
                yield made
            data = b""
            if not frame.eof and len(made) < _MADE_BYTES and not (data := file.read(read_bytes)):
                raise Damaged("the last frame ends early")
        data = _behind(file, frame.unused_data, read_bytes)


def _behind(file: Any, data: bytes, read_bytes: int) -> bytes:
    """What follows a frame, without padding."""
    data = data or file.read(read_bytes)
    while data.startswith(b"\0"):
        data = data.lstrip(b"\0") or file.read(read_bytes)
        if data and not data.startswith(b"\0"):
            raise Damaged("there is something else behind the zeros at its end")
    return data


class _Gzip:
    """One member: zlib keeps what it did not need for itself."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _Zstd:
    """One frame; bounded by the little that it is fed."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._zstd.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._zstd.unused_data)

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._zstd.decompress(data) if data else b""


_FRAMES: dict[Compression, tuple[Callable[[], Decompressor], int]] = {
    "gzip": (_Gzip, _READ_BYTES),
    "zstd": (_Zstd, _ZSTD_READ_BYTES),
    "bzip2": (bz2.BZ2Decompressor, _READ_BYTES),
    "xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_BYTES), _READ_BYTES),
}


def _zip_member(file: Any) -> Iterator[bytes]:
    _check_zip(file)
    with zipfile.ZipFile(file) as opened:
        members = [
            item for item in opened.infolist() if not (item.is_dir() or item.filename.startswith(_LISTED_BESIDE))
        ]
        if len(members) != 1:
            named = ", ".join(repr(item.filename[:60]) for item in members[:3])
            raise Damaged(f"a zip of {len(members)} files ({named}), where one of one file is read")
        with opened.open(members[0]) as member:
            while block := member.read(_MADE_BYTES):
                yield block


def _check_zip(file: Any) -> None:
    """Look at the end of a zip before zipfile makes something of each of its members."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _ZIP_TAIL))
    tail = file.read(_ZIP_TAIL)
    last = tail[tail.rfind(b"PK\x05\x06") :]
    listed = int.from_bytes(last[12:16], "little")
    if listed > _MOST_LISTED and listed != 2**32 - 1:
        raise Damaged(f"a zip whose list of members has {listed} bytes, where one of one file is read")
    if listed == 2**32 - 1 or b"PK\x06\x07" in tail:  # the large form, in which the list may have any size
        at = tail.rfind(b"PK\x06\x06")
        if int.from_bytes(tail[at + 40 : at + 48], "little") > _MOST_LISTED:
            raise Damaged("a zip with a long list of members, where one of one file is read")
    file.seek(0)
