"""How much may wait: a request enters, or is refused at once with a hint when to try again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from corpuscore.errors import MessageTooLarge, Overloaded
from corpuscore.inference.tensors import MOST_TEXTS

#: Requests that wait, where nothing else is said.
MOST_REQUESTS = 1_000
#: Memory of all texts that wait, in bytes.
MOST_BYTES = 256 * 2**20
#: Bounds of the hint, in seconds.
_SOONEST, _LATEST = 0.05, 30.0
#: Weight of the latest request in the pace of the queue.
_WEIGHT = 1 / 32


def size_of(texts: Sequence[str]) -> int:
    """Bytes that texts take in memory."""
    return sum(map(sys.getsizeof, texts))


class Admission:
    """Counts what waits for the model; thread-safe.

    Args:
        most_requests: That wait at once.
        most_texts: Of one request.
        most_bytes: Of all texts that wait. A request that finds nobody there is taken whatever its size.

    Attributes:
        requests: That wait now.
        texts: Of these.
    """

    def __init__(
        self, most_requests: int = MOST_REQUESTS, most_texts: int = MOST_TEXTS, most_bytes: int = MOST_BYTES
    ) -> None:
        self.most_requests, self.most_texts, self._most_bytes = most_requests, most_texts, most_bytes
        self.requests = self.texts = 0
        self._bytes = 0
        self._pace = 0.01  # seconds between two requests that leave the queue, on average
        self._left = time.monotonic()
        self._counting = threading.Lock()

    def check_room(self, coming: int = 0) -> None:
        """See whether a request would be taken, before it is read.

        Args:
            coming: Requests that are being read.

        Raises:
            Overloaded: It would not, with those that come before it.
        """
        if self.requests + coming >= self.most_requests:
            raise self._overloaded(f"{self.requests + coming} requests wait")

    def enter(self, texts: int, size: int) -> None:
        """Let a request wait.

        Args:
            texts: That it has.
            size: Bytes of these in memory.

        Raises:
            MessageTooLarge: It has more texts than one request may have.
            Overloaded: The queue is full.
        """
        if texts > self.most_texts:
            raise MessageTooLarge(
                f"{texts} texts in one request",
                rule=f"This service takes at most {self.most_texts}",
                next_step="send them in several requests",
            )
        self.check_room()
        with self._counting:
            if self._bytes and self._bytes + size > self._most_bytes:
                raise self._overloaded(f"Texts of {self._bytes} bytes wait")
            self.requests += 1
            self.texts += texts
            self._bytes += size

    def leave(self, texts: int, size: int) -> None:
        """A request waits no more: the model has it, or nobody wants it."""
        now = time.monotonic()
        with self._counting:
            self.requests -= 1
            self.texts -= texts
            self._bytes -= size
            self._pace += (min(now - self._left, 1.0) - self._pace) * _WEIGHT
            self._left = now

    def _overloaded(self, value: str) -> Overloaded:
        """Half of the queue will have gone by the time that the hint names."""
        seconds = min(max(self.requests * self._pace / 2, _SOONEST), _LATEST)
        return Overloaded(
            value,
            rule=f"This service lets {self.most_requests} requests and {self._most_bytes} bytes of texts wait",
            next_step=f"try again after {seconds:.2f} s",
            retry_seconds=seconds,
        )
