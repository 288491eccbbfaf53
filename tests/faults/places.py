"""Where objects lie: a folder, or a bucket that is asked directly, past the proxy."""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

_AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"


class Place(Protocol):
    """Objects by key below a URI."""

    uri: str

    def put(self, key: str, body: bytes) -> None:
        """Write an object."""

    def get(self, key: str) -> bytes:
        """Read an object."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def listed(self) -> list[str]:
        """All keys, drafts included, in order."""


class FolderPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, body: bytes) -> None:
        """See Place."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.folder.parent / "draft"
        draft.write_bytes(body)
        shutil.move(draft, path)

    def get(self, key: str) -> bytes:
        """See Place."""
        return (self.folder / key).read_bytes()

    def delete(self, key: str) -> None:
        """See Place."""
        (self.folder / key).unlink()

    def listed(self) -> list[str]:
        """See Place."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


class S3Place:
    """A prefix of a bucket."""

    def __init__(self, endpoint: str, uri: str) -> None:
        self.uri = uri
        self._endpoint = endpoint
        self._bucket, _, self._prefix = uri.removeprefix("s3://").partition("/")

    def put(self, key: str, body: bytes) -> None:
        """See Place."""
        self._ask("PUT", f"{self._bucket}/{quote(f'{self._prefix}/{key}')}", body)

    def get(self, key: str) -> bytes:
        """See Place."""
        return self._ask("GET", f"{self._bucket}/{quote(f'{self._prefix}/{key}')}")

    def delete(self, key: str) -> None:
        """See Place."""
        self._ask("DELETE", f"{self._bucket}/{quote(f'{self._prefix}/{key}')}")

    def listed(self) -> list[str]:
        """See Place."""
        found: list[str] = []
        after = ""
        while True:
            query = f"list-type=2&prefix={quote(self._prefix + '/', safe='')}{after}"
            listed = re.findall(rb"<Key>(.*?)</Key>", self._ask("GET", f"{self._bucket}?{query}"))
            found.extend(unquote(key.decode()).removeprefix(f"{self._prefix}/") for key in listed)
            if not listed:
                return sorted(found)
            after = f"&start-after={quote(unquote(listed[-1].decode()), safe='')}"

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self._endpoint}/{path}", data=body, method=verb)  # noqa: S310 (loopback)
        request.add_header("Authorization", _AUTHORIZATION)
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            answered: bytes = answer.read()
            return answered
