"""Of several writers that swap one small object, each but one is told that another was quicker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpuscore.errors import StorageError
from corpuscore.storage import Pointed, Pointer, Store
from tests.servers.s3 import answering, point_at


@pytest.fixture(params=["folder", "bucket"])
def pointer(request: pytest.FixtureRequest, tmp_path: Path) -> Pointer:
    """One that is not there yet."""
    if request.param == "folder":
        return Pointer(Store(str(tmp_path)), "a/current.json")
    return Pointer(Store(request.getfixturevalue("s3") + "/work"), "a/current.json")


def test_it_holds_what_was_swapped_in_last(pointer: Pointer) -> None:
    """Only in place of what was read."""
    pointer.check()
    assert pointer.read() is None
    assert pointer.swap(None, b"first")
    assert not pointer.swap(None, b"another first")
    first = pointer.read()
    assert first is not None
    assert pointer.swap(first, b"second")
    assert not pointer.swap(first, b"late")
    assert not pointer.swap(Pointed(b"", "0"), b"lost")
    second = pointer.read()
    assert second is not None
    assert second.body == b"second"


def test_every_swap_of_many_writers_counts(tmp_path: Path) -> None:
    """Four writers add to a number ten times each, and none of it is lost."""
    pointer = Pointer(Store(str(tmp_path)), "current.json")
    assert pointer.swap(None, b"0 start")

    def count(writer: int) -> None:
        for at in range(10):
            done = False
            while not done:
                seen = pointer.read()
                assert seen is not None
                done = pointer.swap(seen, b"%d %d-%d" % (int(seen.body.split()[0]) + 1, writer, at))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    last = pointer.read()
    assert last is not None
    assert last.body.split()[0] == b"40"


def test_a_store_that_does_not_compare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes every write would lose one of two."""
    with answering(lambda _: (200, "")) as endpoint:
        point_at(endpoint, monkeypatch)
        with pytest.raises(StorageError, match="does not know conditional writes"):
            Pointer(Store("s3://bucket/work"), "current.json").check()


def test_other_file_systems_are_refused() -> None:
    """They have neither the lock nor the comparison."""
    with pytest.raises(StorageError, match="neither a folder nor in S3"):
        Pointer(Store("memory://work"), "current.json")
