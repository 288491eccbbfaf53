"""Calls that may hang: each runs in a thread, which is left behind when nobody should wait for it any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_T = TypeVar("_T")


def watched(
    call: Callable[[], _T], look: Callable[[float], None], every_seconds: float, leave: Callable[[], Callable[[], None]]
) -> _T:
    """The result of a call, or what it raises; looked at for as long as it lasts.

    Args:
        call: What may hang in a library, where nothing can interrupt it.
        look: Called now and then with the seconds that the call has lasted; what it raises leaves the call behind.
        every_seconds: How often it is called.
        leave: Called when the call is left behind: takes what the call uses out of use, and returns what lets go of it,
            which the call's thread does once the call has ended.
    """
    outcome: Future[_T] = Future()
    settled = threading.Event()
    afterwards: list[Callable[[], None]] = []

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)
        settled.wait()
        for let_go in afterwards:
            let_go()

    threading.Thread(target=run, daemon=True).start()  # no reason for the process not to end
    began = time.monotonic()
    try:
        while not wait([outcome], timeout=every_seconds).done:
            look(time.monotonic() - began)
    except BaseException:
        afterwards.append(leave())
        raise
    finally:
        settled.set()
    return outcome.result()


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """The result of a call, or what it raises.

    Raises:
        TimeoutError: It lasted longer; it goes on, and lets go of what it uses by itself.
    """
    return watched(call, _too_long, seconds, lambda: lambda: None)


def _too_long(seconds: float) -> None:
    raise TimeoutError(f"no end after {seconds:.1f} s")
