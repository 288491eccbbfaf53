"""How long a store that is out of order is waited for: one policy for every request and every body.

What passes by itself (refusals.py judges) is asked again, after a wait that doubles up to five seconds, until
`corpuscore.wait-for-store` (ninety seconds) has gone by since the first failure: a store that restarts, or a network
that changes over, needs about a minute. From the fifth second on, the log says what is waited for, and why.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from corpuscore.errors import StorageUnavailable
from corpuscore.patience import STORE
from corpuscore.storage.refusals import translate

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: However long each of them took: a slow upload that breaks off twice is not given up.
_ATTEMPTS = 3
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 5.0
_TELL_AFTER_SECONDS, _TELL_EVERY_SECONDS = 5.0, 15.0

_is_waited_for: ContextVar[bool] = ContextVar("is_waited_for", default=False)
_told_at = 0.0


async def patiently(what: str, call: Callable[[], Awaitable[_Result]]) -> _Result:
    """Do something in a store, again and again while it is out of order.

    Args:
        what: What is done, and to what, for the log and the error.
        call: Does it; what it does by way of this function itself is tried once, since all of it is done again.

    Raises:
        StorageUnavailable: It was out of order for too long. Whatever else `call` raises, at once.
    """
    if _is_waited_for.get():
        return await call()
    token = _is_waited_for.set(True)
    try:
        return await _again_and_again(what, call)
    finally:
        _is_waited_for.reset(token)


async def _again_and_again(what: str, call: Callable[[], Awaitable[_Result]]) -> _Result:
    failed_at, attempts = 0.0, 0
    while True:
        try:
            result = await call()
        except Exception as error:
            known = translate(error, what)
            if not isinstance(known, StorageUnavailable):
                raise
            attempts += 1
            failed_at = failed_at or time.monotonic()
            passed = time.monotonic() - failed_at
            if passed >= STORE.seconds() and attempts >= _ATTEMPTS:
                raise _given_up(known, attempts, passed) from error
            _tell(known, passed)
            await asyncio.sleep(_wait_seconds(attempts))
        else:
            if attempts and time.monotonic() - failed_at >= _TELL_AFTER_SECONDS:
                log.warning("The store answers again, after %.0f s: %s", time.monotonic() - failed_at, what)
            return result


def _wait_seconds(attempts: int) -> float:
    """Doubled each time, and never the same in two processes, which would come back all at once."""
    return random.uniform(0.5, 1.0) * min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempts, 16), _LONGEST_WAIT_SECONDS)


def _tell(error: StorageUnavailable, passed: float) -> None:
    """Say it once for all requests that wait at the same time."""
    global _told_at
    if passed >= _TELL_AFTER_SECONDS and time.monotonic() - _told_at >= _TELL_EVERY_SECONDS:
        _told_at = time.monotonic()
        log.warning(
            "Waiting for the store since %.0f s, for up to %.0f s: %s",
            passed,
            STORE.seconds(),
            error.value.rstrip("."),
        )


def _given_up(error: StorageUnavailable, attempts: int, passed: float) -> StorageUnavailable:
    return StorageUnavailable(
        f"{error.value.rstrip('.')} (asked {attempts} times in {passed:.0f} s)",
        rule=error.rule,
        next_step=error.next_step,
    )
