"""The work location keeps one contract on a folder and on a bucket."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.errors import StorageError
from corpuscore.storage import Store, list_entries


@pytest.fixture(params=["folder", "bucket", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty work location: a folder, a prefix of a real S3 server's bucket, and a third file system of fsspec."""
    if request.param == "folder":
        return Store(str(tmp_path / "work"))
    if request.param == "memory":
        return Store(f"memory://{tmp_path.name}")
    return Store(request.getfixturevalue("s3") + "/work/here/")


def test_reads_what_it_wrote(store: Store) -> None:
    """The bytes that are read are those written last."""
    store.write("a/b.bin", b"first")
    store.write("a/b.bin", b"second \x00\xff")
    assert store.read("a/b.bin") == b"second \x00\xff"


@pytest.mark.parametrize("uri", ["s3://AKIA:Zq42@bucket/work", "s3://AKIA:Zq/42@bucket", "memory://a?token=Zq42"])
def test_a_location_with_a_secret_is_refused(uri: str) -> None:
    """Manifests, receipts and tables name objects by their location, so that no secret may be in it."""
    with pytest.raises(StorageError, match="environment") as caught:
        Store(uri)
    assert "Zq" not in str(caught.value)


def test_create_makes_once(store: Store) -> None:
    """The second creator is told so, and the first one's bytes stay."""
    assert store.create("receipts/1.json", b"mine")
    assert not store.create("receipts/1.json", b"yours")
    assert store.read("receipts/1.json") == b"mine"


@pytest.mark.parametrize("store", ["folder", "bucket"], indirect=True)
def test_create_has_one_winner(store: Store) -> None:
    """Of many creators at the same moment exactly one wins, and its bytes are there."""
    won: list[bytes] = []
    start = threading.Barrier(8)

    def attempt(body: bytes) -> None:
        start.wait()
        if store.create("receipts/raced", body):
            won.append(body)

    threads = [threading.Thread(target=attempt, args=(str(number).encode(),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read("receipts/raced")]


def test_finds_fresh_keys_by_prefix(store: Store) -> None:
    """find sees what another store object wrote a moment ago, by key prefix and in order, with sizes."""
    other = pickle.loads(pickle.dumps(store))  # noqa: S301 (made in this line)
    assert store.find("receipts/") == {}
    for key in ("receipts/b", "receipts/a", "receipts/deep/c", "receipts-old/d", "parts/e"):
        other.write(key, key.encode())
    assert list(store.find("receipts/").items()) == [("receipts/a", 10), ("receipts/b", 10), ("receipts/deep/c", 15)]
    assert list(store.find("receipts/deep")) == ["receipts/deep/c"]
    assert len(store.find()) == 5


def test_finds_what_is_older(store: Store) -> None:
    """What was written just now is not an hour old, but older than a moment to come."""
    for key in ("parts/b", "parts/a", "receipts/a"):
        store.write(key, b"x")
    assert store.find_older("parts/", timedelta(hours=1)) == []
    assert store.find_older("parts/", timedelta(hours=-1)) == ["parts/a", "parts/b"]


def test_a_file_that_goes_while_its_folder_is_listed_is_not_there(tmp_path: Path) -> None:
    """As another process's draft does when it is renamed; the others are listed."""
    for name in "abc":
        (tmp_path / name).write_bytes(b"1")
    listing = list_entries(f"{tmp_path}/")
    first = next(listing).path
    gone, left = sorted(path for path in tmp_path.iterdir() if str(path) != first)
    gone.unlink()
    assert [entry.path for entry in listing] == [str(left)]


def test_exists_is_fresh(store: Store) -> None:
    """exists knows objects, not folders, and sees them come and go."""
    assert not store.exists("a/b")
    store.write("a/b", b"")
    assert store.exists("a/b")
    assert not store.exists("a")
    store.delete(["a/b", "never/was"])
    assert not store.exists("a/b")


def test_reads_many_at_once(store: Store) -> None:
    """read_many returns every key's bytes, and an absent key is an error that names it."""
    expected = {f"many/{number}": str(number).encode() for number in range(40)}
    for key, body in expected.items():
        store.write(key, body)
    assert store.read_many(expected) == expected
    with pytest.raises(StorageError, match=r"many/missing: nothing is there"):
        store.read_many(["many/1", "many/missing"])


def test_uploads_a_file(store: Store, tmp_path: Path) -> None:
    """A file arrives byte by byte, also where it goes in several parts."""
    body = bytes(range(256)) * (40 * 2**12)  # 40 MiB: three requests to S3
    (tmp_path / "part").write_bytes(body)
    store.upload(tmp_path / "part", "parts/part.parquet")
    assert store.read("parts/part.parquet") == body
    with pytest.raises(StorageError, match="nothing is there"):
        store.upload(tmp_path / "absent", "parts/absent")


def test_opens_for_reading(store: Store, tmp_path: Path) -> None:
    """An opened object seeks, reads, and serves Arrow; opening an absent one is an error."""
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "x.parquet")
    store.upload(tmp_path / "x.parquet", "x.parquet")
    with store.open("x.parquet") as file:
        file.seek(-4, 2)
        assert file.read() == b"PAR1"
        file.seek(0)
        assert pq.read_table(file)["x"].to_pylist() == list(range(1000))
    with pytest.raises(StorageError, match="nothing is there"):
        store.open("absent").read()


def test_a_location_tells_the_time(store: Store) -> None:
    """What orders plans is finer than the whole seconds that S3 tells."""
    before = datetime.now(UTC)
    told = store.check_writable()
    # A file system's own clock may lag by some milliseconds: it ticks with the kernel's.
    assert before - timedelta(milliseconds=50) <= told <= datetime.now(UTC)


def test_check_writable_leaves_nothing(store: Store) -> None:
    """A location that can be written passes, and keeps no trace of the check."""
    store.check_writable()
    assert store.find() == {}
