"""The circuit to a service: open while it is gone, so that requests wait instead of failing one by one.

    closed  --several failures in a row-->  open  --the service answers a probe-->  closed
                                              |--patience is over-->  ServiceUnavailable

One of those who wait asks whether it is back, the others wait for what it finds. The patience counts from the first
failure to the next answer with scores: a service that only says that it is ready does not renew it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from corpuscore.errors import ServiceUnavailable
from corpuscore.patience import SERVICE, Wait
from corpuscore.scoring.remote.pace import wait_before

log = logging.getLogger(__name__)

#: Failures in a row that open the circuit.
FAILURES = 3
#: Between two looks at whether somebody has closed it.
_LOOK_SECONDS = 0.1


class Breaker:
    """Shared by all streams to one service; thread-safe.

    Args:
        url: Of the service, for messages.
        is_ready: Asks it.
    """

    def __init__(self, url: str, is_ready: Callable[[], bool]) -> None:
        self._url, self._is_ready = url, is_ready
        self._failures = 0
        self._open = False
        self._trouble: Wait | None = None
        self._said = ""
        self._changing = threading.Lock()
        self._probing = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether requests wait."""
        return self._open

    def passed(self) -> None:
        """The service has answered with scores."""
        with self._changing:
            self._failures, self._open, self._trouble = 0, False, None

    def failed(self, said: str, *, gone: bool) -> None:
        """A request was not answered, and may be later.

        Args:
            said: Why, in words.
            gone: Whether the service seems to be gone, and not only busy.

        Raises:
            ServiceUnavailable: It has been so for too long, though the circuit was closed: the service says that it
                is ready.
        """
        with self._changing:
            self._said = said
            if self._trouble is None:
                self._trouble = Wait(
                    f"The service at {self._url} gives no scores ({said})", SERVICE.seconds(), log.warning, quiet=5.0
                )
            was_open = self._open
            self._failures += gone
            self._open = was_open or self._failures >= FAILURES
            if self._trouble.over() and not was_open:
                raise self._given_up()

    def wait(self, pause: Callable[[float], None]) -> None:
        """Return when the circuit is closed.

        Args:
            pause: Waits so many seconds; what it raises ends the wait.

        Raises:
            ServiceUnavailable: It has been open for too long.
        """
        attempt = 0
        while self._open:
            if not self._probing.acquire(blocking=False):
                pause(_LOOK_SECONDS)
                continue
            try:
                if self._is_ready():  # or it was closed meanwhile, which does no harm
                    self._close()
                    return
                self._check()
                pause(wait_before(attempt, None))
                attempt += 1
            finally:
                self._probing.release()

    def _close(self) -> None:
        """Let requests try; one more failure opens it again."""
        with self._changing:
            self._open, self._failures = False, FAILURES - 1

    def _check(self) -> None:
        with self._changing:
            if self._trouble is not None and self._trouble.over():
                raise self._given_up()

    def _given_up(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"The service at {self._url} gave no scores for {SERVICE.seconds():.0f} s ({self._said})",
            rule=f"It is waited for that long ({SERVICE.variable})",
            next_step="start it, or look into its log, then run this again; what was scored is kept",
        )
