"""Bodies of HTTP requests: read within bounds of size and time, or refused in a way that the client gets to see.

A body is never held beyond its limit, nor all bodies together beyond theirs, whatever their headers say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corpuscore.errors import MessageTooLarge, Overloaded

T = TypeVar("T")

#: Seconds in which the rest of a refused body is read and thrown away, so that its client can read the refusal.
LINGER_SECONDS = 2.0
#: Seconds after which a client may try again where bodies take up all the room that there is for them.
_RETRY_SECONDS = 1.0


class Room:
    """Bytes of all bodies that are held at once.

    Args:
        size_bytes: At the most.
    """

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes

    def body(self) -> Body:
        """One body's part of the room, given back at the end of a with statement."""
        return Body(self)

    @property
    def free_bytes(self) -> int:
        """What nobody has taken."""
        return self._free

    def take(self, size: int) -> None:
        """Take so many bytes of it.

        Raises:
            Overloaded: There are fewer.
        """
        if size > self._free:
            raise Overloaded(
                f"A request wants {size} bytes more, of which {self._free} are free",
                rule="The bodies of all requests share a room",
                next_step=f"try again after {_RETRY_SECONDS:g} s",
                retry_seconds=_RETRY_SECONDS,
            )
        self._free -= size

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        self._free += size


class Body:
    """One body, with its part of the room from its first byte on until the with statement ends.

    Attributes:
        complete: Whether its last byte has been read.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = bytearray()
        self._taken = 0
        self.complete = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.give(self._taken)

    def drop(self) -> None:
        """Let the bytes go where others stand for them now; their part of the room stays taken."""
        self._held = bytearray()

    async def read(self, request: Request, *, most_bytes: int, seconds: float) -> bytearray:
        """All of a request's body.

        Args:
            request: Whose body has not been read.
            most_bytes: Of a body.
            seconds: From now on until its last byte is there.

        Raises:
            HTTPException: 408, it did not come in time; 415, it has an encoding.
            MessageTooLarge: It is larger.
            Overloaded: There is no room for it.
            ClientDisconnect: The client has gone.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise HTTPException(
                415,
                f"Content-Encoding {encoding[:40]!r}. Bodies are read as they are. Next: send it without an encoding",
                {"accept-encoding": "identity"},
            )
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared[:20]) > most_bytes:
            raise _too_large(f"a body of {declared[:20]} bytes", most_bytes)
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    if len(self._held) + len(chunk) > most_bytes:
                        raise _too_large("a body that goes on", most_bytes)
                    self._room.take(len(chunk))
                    self._taken += len(chunk)
                    self._held += chunk
        except TimeoutError:
            raise HTTPException(
                408, f"The body was not there within {seconds:g} s. Next: send it in one go, or in several requests"
            ) from None
        self.complete = True
        return self._held


def _too_large(value: str, most_bytes: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"The request has {value}",
        rule=f"This service takes at most {most_bytes} bytes",
        next_step="send it in several requests",
    )


async def unless_gone(work: Awaitable[T], receive: Receive) -> T:
    """The result of work, which is cancelled when the client goes away before.

    Args:
        work: What the client waits for.
        receive: Of a request whose body has been read.

    Raises:
        ClientDisconnect: It has gone; the work has ended.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Refusal(Response):
    """A response to a request whose body may not have been read: whole at once, then the connection is closed.

    A connection that is closed while its client still sends is reset, and the client never sees why. So the rest of the
    body is thrown away for a while, with the response sent and not yet ended.
    """

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and wait for the client to end its body or to go."""
        self.headers["connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
