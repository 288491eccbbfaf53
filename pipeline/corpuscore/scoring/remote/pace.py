"""How many requests are under way: more while answers come as fast as before, fewer when they do not or are refused.

Additive increase, multiplicative decrease, as TCP does it: each answer adds 1 / limit while the limit is what holds
requests back; a refusal, or an answer that took far longer than the fastest ones do, takes a part of it, at most once
for all that was under way at the time.

Source: https://www.rfc-editor.org/rfc/rfc5681 (AIMD); Brakmo and Peterson, TCP Vegas (1995) for going by delays
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Requests that are under way at first, and at the most.
FIRST, MOST = 4, 64
#: Times the fastest answers: up to here there may be more, from there on there are too many.
_FAST, _LATE = 3.0, 8.0
#: Answers within so many seconds are never late.
_SOON_SECONDS = 1.0
#: What is left of the limit.
_REFUSED, _SLOWED = 0.5, 0.8
#: With each answer the memory of the fastest one fades, since services change.
_FADING = 1.005
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 10.0


class Pace:
    """Shared by all streams to one service; thread-safe.

    Attributes:
        limit: Requests that may be under way, as a number that moves by parts.
    """

    def __init__(self) -> None:
        self.limit = float(FIRST)
        self._under_way = 0
        self._fastest = float("inf")
        self._lowered = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, pause: Callable[[float], None]) -> Iterator[float]:
        """Wait for a turn, and hold it; the moment when it began.

        Args:
            pause: Called with the seconds that were waited, now and then; what it raises ends the wait.
        """
        with self._changed:
            while self._under_way >= int(self.limit):
                self._changed.wait(0.1)
                pause(0.0)
            self._under_way += 1
        try:
            yield time.monotonic()
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def answered(self, began: float) -> None:
        """A request that began then was answered just now."""
        took = time.monotonic() - began
        with self._changed:
            self._fastest = min(took, self._fastest * _FADING)
            if took > max(_SOON_SECONDS, _LATE * self._fastest):
                self._lower(began, _SLOWED)
            elif took <= _FAST * self._fastest and self._under_way >= int(self.limit):
                self.limit = min(self.limit + 1 / self.limit, MOST)
                self._changed.notify()

    def refused(self, began: float) -> None:
        """A request that began then was refused for there being too many, or was not answered in time."""
        with self._changed:
            self._lower(began, _REFUSED)

    def _lower(self, began: float, kept: float) -> None:
        if began >= self._lowered:  # else it was under way when the limit was lowered for it
            self._lowered = time.monotonic()
            self.limit = max(self.limit * kept, 1.0)


def wait_before(attempt: int, hint: float | None) -> float:
    """Seconds before a request is sent again: any time up to a bound that doubles, after what the server asks for.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
    """
    bound = min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempt, 16), _LONGEST_WAIT_SECONDS)
    return (hint or 0.0) + random.uniform(0, bound if hint is None else min(bound, hint))
