"""A store that is out of order for a while costs time; one that is out of order for long is named."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpuscore.errors import StorageError, StorageUnavailable
from corpuscore.storage import Store, list_entries, patience, s3
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at
from tests.servers.s3_faults import Verb

pytestmark = pytest.mark.timeout(240)  # outages last for seconds

BODY = bytes(range(256)) * 2**10  # 256 KiB
LARGE = bytes(range(256)) * (11 * 2**12)  # 11 MiB: three parts of an upload


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that this process's AWS environment leads to."""
    monkeypatch.setattr("corpuscore.storage.store._UPLOAD_CHUNK", 5 * 2**20)
    with FaultProxy(s3_server.endpoint) as made:
        point_at(made.endpoint, monkeypatch)
        yield made


@pytest.fixture
def store(proxy: FaultProxy, s3_server: S3Server) -> Store:
    """A work location in a bucket of its own, behind the proxy, with one object."""
    made = Store(s3_server.make_bucket() + "/work")
    made.write("there", BODY)
    return made


def get(store: Store, folder: Path) -> None:
    """Read a whole object."""
    assert store.read("there") == BODY


def get_ranges(store: Store, folder: Path) -> None:
    """Read an object from its middle on, then its start."""
    with store.open("there") as file:
        file.seek(1000)
        assert file.read() == BODY[1000:]
        file.seek(0)
        assert file.read(10) == BODY[:10]


def put(store: Store, folder: Path) -> None:
    """Write an object, and make one that may be there already, by this very call."""
    store.write("new", BODY)
    assert store.read("new") == BODY
    store.create("made", BODY)
    assert store.read("made") == BODY


def head(store: Store, folder: Path) -> None:
    """Look objects up, one that is there and one that is not."""
    assert store.exists("there")
    assert not store.exists("absent")


def listing(store: Store, folder: Path) -> None:
    """List more than a page of objects."""
    assert len(store.find("many/")) == 60


def delete(store: Store, folder: Path) -> None:
    """Remove an object."""
    store.write("gone", b"")
    store.delete(["gone"])
    assert not store.exists("gone")


def upload(store: Store, folder: Path) -> None:
    """Upload a file in several parts."""
    (folder / "large").write_bytes(LARGE)
    store.upload(folder / "large", "large")
    assert store.read("large") == LARGE


DOINGS: dict[Verb, Callable[[Store, Path], None]] = {
    "GET": get_ranges,
    "PUT": put,
    "HEAD": head,
    "LIST": listing,
    "DELETE": delete,
    "CREATE": upload,
    "PART": upload,
    "COMPLETE": upload,
}
REFUSALS = ["503", "500", "429", "503 SlowDown", "500 InternalError", "429 TooManyRequests", "503 XOwnWords"]


def prepare(verb: Verb, store: Store) -> None:
    """What a doing finds there."""
    if verb == "LIST":
        for number in range(60):
            store.write(f"many/{number}", b"")


@pytest.mark.parametrize("verb", DOINGS)
def test_every_request_is_made_again(verb: Verb, store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """Whatever the store answers, with and without a body, and however the connection ends: each verb passes."""
    prepare(verb, store)
    for fault in [*REFUSALS, "unsent", "lost", "reset", "truncated"]:
        rule = proxy.rule(fault, verb=verb, count=1)
        DOINGS[verb](store, tmp_path)
        assert rule.injected == 1


def test_whole_bodies_that_break_off_are_read_again(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """Also in the middle of the one request for a whole object."""
    for fault in ("reset", "truncated", "503 SlowDown", "500"):
        proxy.rule(fault, verb="GET", count=2)
    for _ in range(4):
        get(store, tmp_path)
    assert proxy.injected.total() == 8


def test_a_range_comes_whole(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """A shortened body is noticed though its Content-Length is right."""
    proxy.rule("shortened", verb="GET", count=3)
    get_ranges(store, tmp_path)
    assert proxy.injected.total() == 3


def test_a_listing_that_is_cut_is_listed_again(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """XML that ends too early is no short listing."""
    prepare("LIST", store)
    proxy.rule("shortened", verb="LIST", count=2)
    listing(store, tmp_path)
    assert proxy.injected.total() == 2


def test_an_abort_whose_answer_is_lost_hides_nothing(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """The error is the part's, not that the upload is gone."""
    proxy.rule("403 AccessDenied", verb="PART", skip=1)
    proxy.rule("lost", verb="ABORT", count=1)
    with pytest.raises(StorageError, match="AccessDenied"):
        upload(store, tmp_path)
    assert proxy.injected["lost", "ABORT"] == 1


def test_an_outage_of_seconds_is_bridged(
    store: Store,
    proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Nobody listens for eight seconds: every verb waits, the log says for what and why, and that it is over."""
    prepare("LIST", store)
    monkeypatch.setattr(patience, "_TELL_EVERY_SECONDS", 0.0)
    proxy.down(8.0)
    with caplog.at_level(logging.WARNING, "corpuscore.storage"):
        threads = [
            threading.Thread(target=doing, args=(store, tmp_path))
            for doing in (get, get_ranges, put, head, listing, delete)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert f"127.0.0.1:{proxy.port}" in told
    assert "Waiting for the store since" in told
    assert "The store answers again" in told
    for doing in (get, head, listing):
        doing(store, tmp_path)


def test_a_store_that_stays_away_is_named(
    store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The patience ends once, also where a body is read around a request; the error says how long and how often."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    proxy.down()
    for doing in (get, get_ranges, put, head, delete):
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match=r"asked \d+ times in \d+ s.*Next: check AWS_ENDPOINT_URL"):
            doing(store, tmp_path)
        assert time.monotonic() - began < 30
    with pytest.raises(StorageUnavailable, match="asked"):
        list(list_entries(store.uri_of("x")))


@pytest.mark.parametrize("verb", DOINGS)
def test_a_stalled_answer_is_given_up(
    verb: Verb, s3_server: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A connection that says nothing more is left after a while, and the request is made again."""
    monkeypatch.setattr(s3, "_READ_SECONDS", 3)
    store = Store(s3_server.make_bucket())
    store.write("there", BODY)
    prepare(verb, store)
    rule = proxy.rule("stall", verb=verb, count=1)
    DOINGS[verb](store, tmp_path)
    assert rule.injected == 1


def test_a_server_that_takes_nothing_is_given_up(
    s3_server: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bytes of a body that nobody reads are no reason to wait for ever."""
    monkeypatch.setattr(s3, "_SEND_MILLISECONDS", 3000)
    store = Store(s3_server.make_bucket())
    rule = proxy.rule("unread", verb=("PUT", "PART"), count=1)
    upload(store, tmp_path)
    assert rule.injected == 1


def test_an_upload_that_was_completed_is_there(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """A store that does not know an upload any more, after the answer to its end was lost, has the object."""
    proxy.rule("lost", verb="COMPLETE", count=1)
    proxy.rule("404 NoSuchUpload", verb=("COMPLETE", "ABORT"))
    upload(store, tmp_path)
    assert proxy.injected["404 NoSuchUpload", "COMPLETE"] == 1


def test_an_upload_that_somebody_aborted_is_made_again_later(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """Without the object, the upload has not arrived, and may the next time."""
    proxy.rule("404 NoSuchUpload", verb=("COMPLETE", "ABORT"))
    with pytest.raises(StorageUnavailable, match="the store knows the upload no more"):
        upload(store, tmp_path)


def test_seconds_of_latency_are_borne(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """Late answers are answers: nothing is asked twice."""
    proxy.seen.clear()
    proxy.rule("latency", lasting=3.0)
    get(store, tmp_path)
    assert proxy.seen == {"GET": 1}


@pytest.mark.parametrize("fault", ["400 ExpiredToken", "403 InvalidAccessKeyId", "403 SignatureDoesNotMatch", "400"])
def test_credentials_that_have_ended_are_told_at_once(
    fault: str, store: Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Renewed or expired credentials are permanent, also where a HEAD is all that was asked."""
    proxy.rule(fault)
    for doing in (get, put, head, delete):
        before = proxy.seen.total()
        with pytest.raises(StorageError, match=r"Next: check AWS_ACCESS_KEY_ID"):
            doing(store, tmp_path)
        assert proxy.seen.total() <= before + 2  # botocore looks the bucket's region up after a HEAD that says 400
