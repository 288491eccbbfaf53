"""The circuit: when it opens, who asks, who waits, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import dask
import pytest

from corpuscore.errors import ServiceUnavailable
from corpuscore.scoring.remote.breaker import FAILURES, Breaker


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Half a second."""
    with dask.config.set({"corpuscore.wait-for-service": "500ms"}):
        yield


def _breaker(is_ready: Callable[[], bool] = lambda: True) -> Breaker:
    return Breaker("grpc://there:1/m", is_ready)


def _sleep(seconds: float) -> None:
    time.sleep(min(seconds, 0.01))


def _fail(breaker: Breaker, times: int = 1, *, gone: bool = True) -> None:
    for _ in range(times):
        breaker.failed("UNAVAILABLE: away", gone=gone)


def test_failures_in_a_row_open_it_and_an_answer_closes_it() -> None:
    """One answer between them, and they are counted from the first again."""
    breaker = _breaker()
    _fail(breaker, FAILURES - 1)
    breaker.passed()
    _fail(breaker, FAILURES - 1)
    before = breaker.is_open
    _fail(breaker)
    opened = breaker.is_open
    breaker.passed()
    assert (before, opened, breaker.is_open) == (False, True, False)


def test_a_service_that_is_busy_is_not_gone() -> None:
    """Its refusals do not open the circuit, and are given up after the patience."""
    breaker = _breaker()
    _fail(breaker, 10 * FAILURES, gone=False)
    assert not breaker.is_open
    time.sleep(0.6)
    with pytest.raises(ServiceUnavailable, match="WAIT_FOR_SERVICE"):
        _fail(breaker, gone=False)


def test_one_asks_while_others_wait() -> None:
    """A service that comes back is asked by one at a time, and all go on."""
    asking, most, asked = 0, 0, 0

    def is_ready() -> bool:
        nonlocal asking, most, asked
        asking, asked = asking + 1, asked + 1
        most = max(most, asking)
        time.sleep(0.01)
        asking -= 1
        return asked > 5

    breaker = _breaker(is_ready)
    _fail(breaker, FAILURES)
    threads = [threading.Thread(target=breaker.wait, args=(_sleep,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not breaker.is_open
    assert (most, asked) == (1, 6)


def test_after_a_probe_one_more_failure_opens_it() -> None:
    """A service that only says that it is ready is not flooded with requests that fail."""
    breaker = _breaker()
    _fail(breaker, FAILURES)
    breaker.wait(_sleep)
    ready = breaker.is_open
    _fail(breaker)
    assert (ready, breaker.is_open) == (False, True)


def test_a_service_that_stays_away_is_given_up() -> None:
    """With what was last said, by whoever waits, and after the patience."""
    breaker = _breaker(lambda: False)
    _fail(breaker, FAILURES)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="UNAVAILABLE: away"):
        breaker.wait(_sleep)
    assert 0.3 < time.monotonic() - began < 10


def test_readiness_alone_does_not_renew_the_patience() -> None:
    """Probe and failure take turns until it is over; an answer with scores begins it anew."""
    breaker = _breaker()

    def try_and_fail() -> None:
        for _ in range(10**6):
            _fail(breaker)
            breaker.wait(_sleep)

    def until_given_up() -> float:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable):
            try_and_fail()
        return time.monotonic() - began

    assert until_given_up() < 5
    breaker.passed()
    assert 0.4 < until_given_up() < 5


def test_a_wait_ends_with_what_its_pause_raises() -> None:
    """A stream that is closed meanwhile does not ask on."""

    def stop(_seconds: float) -> None:
        raise KeyError

    breaker = _breaker(lambda: False)
    _fail(breaker, FAILURES)
    with pytest.raises(KeyError):
        breaker.wait(stop)
