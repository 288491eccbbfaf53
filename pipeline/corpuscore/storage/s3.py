"""S3 through s3fs: its requests and bodies under the one patience of this room, its sockets with limits."""

from __future__ import annotations

import socket
from datetime import datetime
from functools import partial
from typing import Any

import aiobotocore.session  # type: ignore[import-untyped]
import s3fs
from fsspec.asyn import sync, sync_wrapper

from corpuscore.storage.patience import patiently

#: A connection that says nothing for so long is given up, and the request made again.
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
#: What was sent and is not acknowledged for so long, too: the read limit counts from the end of the request only.
_SEND_MILLISECONDS = 60_000


def make_s3(anonymous: bool = False) -> PatientS3FileSystem:
    """The file system; endpoint, region and credentials come from the usual AWS environment and configuration files.

    Args:
        anonymous: Requests are not signed, whatever credentials there are.
    """
    session = aiobotocore.session.AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_timestamp)
    return PatientS3FileSystem(
        anon=anonymous,
        session=session,
        use_listings_cache=False,
        skip_instance_cache=True,
        default_cache_type="none",  # readers ask for the ranges they need, each one request
        config_kwargs={
            "max_pool_connections": 64,
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": 1},  # the patience is ours: two would multiply
            "connector_args": {"socket_factory": _make_socket},
        },
    )


class PatientS3FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs whose requests are made again while the store is out of order.

    s3fs's own retries know few of the errors that pass: not a HEAD that is answered 503, which has no body to name a
    code, nor InternalError, nor a connection that is refused. Around a body they multiply with those of the request.
    """

    retries = 1

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Bucket and key; s3fs drops `?versionId=...` from a key that holds it, and so reads another object."""
        bucket, key, _ = super().split_path(path)
        _, mark, rest = path.partition("?versionId=")
        return bucket, key[: len(key) - len(rest) + len(rest.rstrip("/"))] + mark + rest if mark else key, None

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        request = partial(super()._call_s3, method, *args, **kwargs)
        try:
            return await patiently(f"{method} s3://{kwargs.get('Bucket', '')}/{kwargs.get('Key', '')}", request)
        except FileNotFoundError:
            if method != "abort_multipart_upload":
                raise
            return {}  # an answer was lost: the upload is gone, as it should be

    call_s3 = sync_wrapper(_call_s3)

    async def _cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        read = partial(super()._cat_file, path, *args, **kwargs)
        return await patiently(f"read s3://{path}", read)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> s3fs.S3File:
        size = block_size or self.default_block_size
        return _PatientFile(self, path, mode, block_size=size, cache_type=self.default_cache_type, **kwargs)


class _PatientFile(s3fs.S3File):  # type: ignore[misc]  # s3fs has no types
    """An object that is read in ranges, each of them whole, of the version that was opened."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        what = f"read s3://{self.path} [{start}:{end}]"
        body: bytes = sync(self.fs.loop, patiently, what, partial(self._fetch, start, min(end, self.size)))
        return body

    async def _fetch(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        answer = await self.fs._call_s3(
            "get_object", Bucket=self.bucket, Key=self.key, Range=f"bytes={start}-{end - 1}", **self.read_kw
        )
        async with answer["Body"] as stream:
            body: bytes = await stream.read()
        if len(body) != end - start:
            raise ConnectionError(f"{len(body)} of {end - start} bytes came")
        return body


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    """The socket of a connection, which ends where the other side takes nothing any more."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SEND_MILLISECONDS)
    return made


def _parse_timestamp(value: Any) -> datetime:
    """botocore's own parser takes three quarters of the time that a page of 1,000 objects costs its client."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        parsed: datetime = parse_timestamp(value)
        return parsed
