"""How far work is, in words: the same on a terminal, in a command's output and in a task's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corpuscore.tally import Progress


def figures(now: Progress) -> str:
    """What has been scored by now, and how fast; before that, what goes on; or that nobody is there to go on."""
    if now.waiting_seconds is not None:
        return f"{now.waiting_for} for {now.waiting_seconds:,.0f} s"
    if now.phase:
        return now.phase
    rejected = f", {now.rejected:,} rejected" if now.rejected else ""
    return f"{now.rows:,} documents{rejected}, {now.rows_per_second:,.0f} a second"


def remaining(now: Progress) -> float | None:
    """Seconds to go, where work is going on."""
    return now.eta_seconds if now.waiting_seconds is None else None


class Lines:
    """Writes a line now and then, and one at the end.

    Args:
        write: Takes a line.
        what: What is counted, such as `partitions`.
        seconds: Between two lines, at the least.
    """

    def __init__(self, write: Callable[[str], None], what: str, seconds: float) -> None:
        self._write = write
        self._what = what
        self._seconds = seconds
        self._last = time.monotonic()
        self._ended = False

    def __call__(
        self, done: int, total: int, note: str, seconds_to_go: float | None = None, share: float | None = None
    ) -> None:
        """Say how far it is, if it is time to; the share is for who draws it."""
        if self._ended if done >= total else time.monotonic() - self._last < self._seconds:
            return
        self._ended = done >= total
        self._last = time.monotonic()
        rest = f", about {seconds_to_go:,.0f} s to go" if seconds_to_go else ""
        self._write(f"{done:,} of {total:,} {self._what}, {note}{rest}")

    def line(self, text: str) -> None:
        """Say something else, at once."""
        self._write(text)
