"""How many requests are under way, by a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.scoring.remote import pace
from corpuscore.scoring.remote.pace import FIRST, MOST, Pace, wait_before


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """As time's."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def _answer(at: Pace, clock: Clock, seconds: float, *, full: bool = True) -> None:
    """One request that takes so long, while as many are under way as may be, or only this one."""
    with ExitStack() as turns:
        for _ in range(int(at.limit) - 1 if full else 0):
            turns.enter_context(at.turn(_never))
        with at.turn(_never) as began:
            clock.now += seconds
            at.answered(began)


def _never(_seconds: float) -> None:
    raise AssertionError("there was a turn to have")


def test_answers_that_stay_fast_raise_the_limit_up_to_a_bound(clock: Clock) -> None:
    """By one for as many answers as there are requests under way."""
    at = Pace()
    for _ in range(FIRST):
        _answer(at, clock, 0.1)
    assert FIRST + 0.8 < at.limit <= FIRST + 1
    for _ in range(MOST * MOST):
        _answer(at, clock, 0.1)
    assert at.limit == MOST


def test_a_limit_that_holds_nothing_back_stays(clock: Clock) -> None:
    """Fast answers to single requests say nothing about many."""
    at = Pace()
    for _ in range(50):
        _answer(at, clock, 0.1, full=False)
    assert at.limit == FIRST


@pytest.mark.parametrize(("fast", "slow", "change"), [(0.5, 2.0, 0), (0.5, 5.0, -1), (0.01, 0.9, 0), (0.5, 1.0, 1)])
def test_answers_that_are_late_lower_it(clock: Clock, fast: float, slow: float, change: int) -> None:
    """Late is far beyond the fastest ones, and more than a second; between fast and late, the limit stays."""
    at = Pace()
    _answer(at, clock, fast, full=False)
    _answer(at, clock, slow)
    assert (at.limit > FIRST) - (at.limit < FIRST) == change


def test_refusals_of_what_was_under_way_together_halve_it_once(clock: Clock) -> None:
    """One that began after that halves it again; one request may always be under way."""
    at = Pace()
    began = clock.now
    clock.now += 1
    for _ in range(4):
        at.refused(began)
    assert at.limit == FIRST / 2
    for _ in range(10):
        clock.now += 1
        at.refused(clock.now)
    assert at.limit == 1


def test_no_more_are_under_way_than_the_limit() -> None:
    """Threads wait for their turn, and each has it in the end; one whose pause raises is out."""
    at = Pace()
    under_way, most = 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal under_way, most
        with at.turn(lambda _seconds: None):
            with counting:
                under_way += 1
                most = max(most, under_way)
            threading.Event().wait(0.005)
            with counting:
                under_way -= 1

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (under_way, most) == (0, FIRST)

    def stop(_seconds: float) -> None:
        raise KeyError

    with ExitStack() as turns:
        for _ in range(FIRST):
            turns.enter_context(at.turn(_never))
        with pytest.raises(KeyError), at.turn(stop):
            pass
    _fill(at, _never)


def _fill(at: Pace, pause: Callable[[float], None]) -> None:
    with ExitStack() as turns:
        for _ in range(int(at.limit)):
            turns.enter_context(at.turn(pause))


@given(st.integers(0, 10**6), st.none() | st.floats(0, 60))
def test_waits_are_bounded_and_come_after_what_the_server_asks_for(attempt: int, hint: float | None) -> None:
    """Up to a bound that doubles from 0.1 to 10 s; never before the hint, nor long after it."""
    waited = wait_before(attempt, hint)
    assert (hint or 0) <= waited <= min(0.1 * 2 ** min(attempt, 9), 10) + (hint or 0)
    assert hint is None or waited <= 2 * hint


def test_waits_are_spread() -> None:
    """Clients that were refused together do not come back together."""
    waits = [wait_before(5, None) for _ in range(200)]
    assert min(waits) < 0.8 < 2.4 < max(waits)
