"""Objects of web servers, http:// and https://: each by its exact URL, read in ranges, under this room's patience.

A server that answers no ranges (Python's own, for one) is asked for the whole object, into a file that nobody sees.
"""

from __future__ import annotations

import io
import re
import tempfile
from email.utils import parsedate_to_datetime
from functools import partial
from typing import IO, Any

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from corpuscore.errors import StorageError
from corpuscore.storage.patience import patiently

_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_COPY_BYTES = 2**20
_TOTAL = re.compile(r"bytes [^/]*/(\d+)")
#: As stored: a server that compressed on the way would give other bytes than it counts.
_PLAIN = {"Accept-Encoding": "identity"}
_RANGE_ENDS_IN = 206
_BEYOND = 416
_GONE = (404, 410)


def make_web() -> WebFileSystem:
    """The file system; proxies and logins come from the environment and ~/.netrc."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return WebFileSystem(
        client_kwargs={"timeout": timeout, "trust_env": True}, use_listings_cache=False, skip_instance_cache=True
    )


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's, with one way to ask for an object's size and version, and with limits to all waiting."""

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        """Size and version of an object, by a request for its first byte: a signed URL may allow no other.

        Raises:
            StorageError: The server says nothing by which a later version could be told from this one.
        """
        return await patiently(f"look up {url}", partial(self._looked_up, url))

    async def _looked_up(self, url: str) -> dict[str, Any]:
        session = await self.set_session()
        async with session.get(self.encode_url(url), headers={**_PLAIN, "Range": "bytes=0-0"}) as answer:
            if answer.status in _GONE:
                raise FileNotFoundError(url)
            if answer.status != _BEYOND:
                answer.raise_for_status()
            ranged = answer.status in (_RANGE_ENDS_IN, _BEYOND)
            total = _TOTAL.match(answer.headers.get("Content-Range", ""))
            size = int(total[1]) if total else None if ranged else answer.content_length
            info = {"name": url, "type": "file", "size": size, "partial": ranged and size is not None}
            told = answer.headers.get("Last-Modified", "")
            etag = answer.headers.get("ETag", "").removeprefix("W/").strip('"') or (told and f"{told}, {size} bytes")
        if not etag or size is None:
            raise StorageError(
                f"{url}: the server says neither ETag nor Last-Modified, or no size",
                rule="a run reads the version of an object that it planned, which one of them has to tell",
                next_step="copy the object into a folder or a bucket",
            )
        return info | {"ETag": etag} | ({"mtime": parsedate_to_datetime(told)} if told else {})

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> IO[bytes]:
        info = self.info(path)
        if info["partial"]:
            return io.BufferedReader(_WebFile(self, path, info["size"]), 2**16)
        return self._copied(path)

    def _copied(self, url: str) -> IO[bytes]:
        """A copy of an object in a file without a name."""
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (whoever reads it closes it)
        sync(self.loop, patiently, f"read {url}", partial(self._copy, url, copy))
        copy.seek(0)
        return copy

    async def _copy(self, url: str, into: IO[bytes]) -> None:
        into.seek(0)
        into.truncate()
        session = await self.set_session()
        async with session.get(self.encode_url(url), headers=_PLAIN) as answer:
            answer.raise_for_status()
            async for piece in answer.content.iter_chunked(_COPY_BYTES):
                into.write(piece)

    async def fetch(self, url: str, start: int, stop: int) -> bytes:
        """A range of an object."""
        session = await self.set_session()
        wanted = {**_PLAIN, "Range": f"bytes={start}-{stop - 1}"}
        async with session.get(self.encode_url(url), headers=wanted) as answer:
            answer.raise_for_status()
            if answer.status != _RANGE_ENDS_IN:
                raise ConnectionError("the server answers ranges no more")
            body: bytes = await answer.read()
        if len(body) != stop - start:
            raise ConnectionError(f"{len(body)} of {stop - start} bytes came")
        return body


class _WebFile(io.RawIOBase):
    """An object of a server that answers ranges."""

    def __init__(self, store: WebFileSystem, url: str, size: int) -> None:
        self._store = store
        self._url = url
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size, self._at + len(buffer))
        if self._at >= stop:
            return 0
        what = f"read {self._url} [{self._at}:{stop}]"
        body = sync(self._store.loop, patiently, what, partial(self._store.fetch, self._url, self._at, stop))
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)
