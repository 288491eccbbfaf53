from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path

import pytest

from corpuscore.errors import ValidationFailed
from corpuscore.parts import open_checked
from corpuscore.storage import Store
from tests.parts import PartMaker, opened
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at


def test_a_part_with_its_digest_is_read(tmp_path: Path) -> None:
    """The rows are those that were written."""
    maker = PartMaker(tmp_path)
    rows = maker.rows("a", 10, 2)
    path, digest = maker.write(rows, "w")
    with open_checked(opened, str(path), digest) as file:
        assert file.read().equals(rows)


def test_other_bytes_are_refused_with_both_digests(tmp_path: Path) -> None:
    """One byte that differs is enough."""
    path, digest = PartMaker(tmp_path).write(PartMaker(tmp_path).rows("a", 10), "w")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValidationFailed, match=digest), open_checked(opened, str(path), digest):
        pass


def test_a_store_that_cannot_seek_is_read_once_from_front_to_back() -> None:
    """A remote object is streamed, not asked for in pieces; garbage with a right digest is still no Parquet."""

    class Stream(io.RawIOBase):
        left = 3 * 2**20

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = min(len(buffer), self.left)
            buffer[:count] = b"x" * count
            self.left -= count
            return count

    digest = hashlib.sha256(b"x" * 3 * 2**20).hexdigest()
    with (
        pytest.raises(ValidationFailed, match="no Parquet"),
        open_checked(lambda _: closing(io.BufferedReader(Stream())), "part", digest),
    ):
        pass


@pytest.mark.parametrize("fault", ["flipped", "shortened"])
def test_bytes_that_are_damaged_on_their_way_are_asked_for_again(
    fault: str, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound part is not scored again for one bad answer; the copy holds nothing of it."""
    maker = PartMaker(tmp_path)
    rows = maker.rows("a", 10, 2)
    path, digest = maker.write(rows, "w")
    with FaultProxy(s3_server.endpoint) as proxy:
        point_at(proxy.endpoint, monkeypatch)
        store = Store(s3_server.make_bucket())
        store.upload(path, "part")
        rule = proxy.rule(fault, verb="GET", count=1)
        with open_checked(store.open, "part", digest) as file:
            assert file.read().equals(rows)
        assert rule.injected == 1
