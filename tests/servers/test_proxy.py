"""The proxy does to clients what its rules say, and nothing else."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server

BODY = bytes(range(256)) * 64
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the session's server."""
    with FaultProxy(s3_server.endpoint) as made:
        yield made


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The name of a bucket with one object, `a`."""
    name = s3_server.make_bucket().removeprefix("s3://")
    assert ask(s3_server.endpoint, "PUT", f"/{name}/a", BODY)[0] == 200
    return name


def ask(endpoint: str, method: str, path: str, body: bytes = b"", timeout: float = 30) -> tuple[int, bytes]:
    """One request by hand: status and body."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=timeout)
    try:
        connection.request(method, path, body, SIGNED)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_rules_it_is_a_way(proxy: FaultProxy, bucket: str) -> None:
    """Bytes, sizes and statuses pass as they are, also on one connection."""
    assert ask(proxy.endpoint, "GET", f"/{bucket}/a") == (200, BODY)
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=30)
    for _ in range(2):
        connection.request("HEAD", f"/{bucket}/a", headers=SIGNED)
        answer = connection.getresponse()
        assert (answer.read(), answer.getheader("Content-Length")) == (b"", str(len(BODY)))
    connection.close()
    assert ask(proxy.endpoint, "GET", f"/{bucket}/absent")[0] == 404
    assert proxy.seen == {"GET": 2, "HEAD": 2}
    assert not proxy.injected


def test_refusals_come_with_and_without_a_body(proxy: FaultProxy, bucket: str) -> None:
    """As often as was said, for the verbs and keys that were named."""
    rule = proxy.rule("503 SlowDown", verb="GET", key=r"/a$", count=1)
    proxy.rule("500", verb="GET", key=r"/b$")
    status, body = ask(proxy.endpoint, "GET", f"/{bucket}/a")
    assert status == 503
    assert b"<Code>SlowDown</Code>" in body
    assert ask(proxy.endpoint, "GET", f"/{bucket}/b") == (500, b"")
    assert ask(proxy.endpoint, "GET", f"/{bucket}/a") == (200, BODY)
    assert (rule.injected, proxy.injected) == (1, {("503 SlowDown", "GET"): 1, ("500", "GET"): 1})


def test_bodies_break_off(proxy: FaultProxy, bucket: str) -> None:
    """Reset, cut off, shortened with a right length, one bit changed."""
    for fault, error in (("reset", ConnectionResetError), ("truncated", http.client.IncompleteRead)):
        proxy.rule(fault, count=1)
        with pytest.raises(error):
            ask(proxy.endpoint, "GET", f"/{bucket}/a")
    proxy.rule("shortened", count=1)
    assert ask(proxy.endpoint, "GET", f"/{bucket}/a") == (200, BODY[: len(BODY) // 2])
    proxy.rule("flipped", count=1)
    status, body = ask(proxy.endpoint, "GET", f"/{bucket}/a")
    assert (status, len(body), sum(a != b for a, b in zip(body, BODY, strict=True))) == (200, len(BODY), 1)


def test_a_lost_answer_is_of_a_request_that_was_done(proxy: FaultProxy, bucket: str) -> None:
    """The object is there; an unsent request leaves none."""
    proxy.rule("lost", verb="PUT", key="/b$")
    proxy.rule("unsent", verb="PUT", key="/c$")
    for name, there in (("b", 200), ("c", 404)):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            ask(proxy.endpoint, "PUT", f"/{bucket}/{name}", b"x")
        assert ask(proxy.endpoint, "GET", f"/{bucket}/{name}")[0] == there


def test_an_answer_stalls_or_comes_late(proxy: FaultProxy, bucket: str) -> None:
    """A stall outlasts the client's patience, a late answer does not."""
    proxy.rule("stall", verb="GET", count=1)
    with pytest.raises(TimeoutError):
        ask(proxy.endpoint, "GET", f"/{bucket}/a", timeout=0.5)
    proxy.rule("latency", verb="GET", count=1, lasting=0.5)
    began = time.monotonic()
    assert ask(proxy.endpoint, "GET", f"/{bucket}/a") == (200, BODY)
    assert time.monotonic() - began >= 0.5


def test_listings_are_old_or_leave_out(proxy: FaultProxy, bucket: str) -> None:
    """A stale one is what was said first; another leaves out what matches."""
    listing = f"/{bucket}?list-type=2&prefix="
    assert b"<Key>a</Key>" in ask(proxy.endpoint, "GET", listing)[1]
    ask(proxy.endpoint, "PUT", f"/{bucket}/b", b"x")
    proxy.rule("stale", count=1)
    assert b"<Key>b</Key>" not in ask(proxy.endpoint, "GET", listing)[1]
    proxy.rule("omitted", key="a", count=1)
    listed = ask(proxy.endpoint, "GET", listing)[1]
    assert (b"<Key>a</Key>" in listed, b"<Key>b</Key>" in listed) == (False, True)


def test_it_is_down_for_a_while(proxy: FaultProxy, bucket: str) -> None:
    """Connections are refused, those that are open end, and it comes back at the same port."""
    proxy.rule("latency", count=1, lasting=30)
    broken: list[BaseException] = []

    def wait() -> None:
        try:
            ask(proxy.endpoint, "GET", f"/{bucket}/a")
        except (http.client.HTTPException, OSError) as error:
            broken.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not proxy.injected:
        time.sleep(0.01)
    proxy.down(1.0)
    waiting.join(10)
    assert len(broken) == 1
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.endpoint, "GET", f"/{bucket}/a")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert ask(proxy.endpoint, "GET", f"/{bucket}/a") == (200, BODY)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    assert time.monotonic() < deadline


def test_chance_goes_by_the_seed(proxy: FaultProxy, bucket: str) -> None:
    """The same seed hits the same requests."""
    outcomes = []
    for _ in range(2):
        proxy.clear()
        proxy.rule("503", probability=0.5, seed=11)
        outcomes.append([ask(proxy.endpoint, "GET", f"/{bucket}/a")[0] for _ in range(20)])
    assert outcomes[0] == outcomes[1]
    assert {200, 503} == set(outcomes[0])


def test_an_unknown_fault_is_refused(proxy: FaultProxy) -> None:
    """A misspelt rule would never hit."""
    with pytest.raises(ValueError, match="'503 slow down' is none of"):
        proxy.rule("503 slow down")
