"""uvicorn as the service runs it: on a loop that is not its own, with bounds that it has not by itself."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the head of a request is there, from the connection or the first byte on.
HEAD_SECONDS = 15.0
#: Bytes of a request's head.
HEAD_BYTES = 32 * 2**10
#: Seconds for which a connection is kept without a request: more than the 60 of most proxies, which then close it.
KEEP_ALIVE_SECONDS = 65


class PatientProtocol(H11Protocol):
    """HTTP/1.1, for clients that send their heads in time.

    uvicorn waits for ever for a client that has connected and sends nothing, or a byte now and then.
    """

    head_seconds = HEAD_SECONDS
    _ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; send what is written at once.

        asyncio says so only to sockets that name TCP as their protocol, which those of socket.create_server do not: the
        body of a response, which follows its head, would wait for the client's kernel to confirm the head, 40 ms.
        """
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Wait on while no request is under way."""
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Leave the connection to uvicorn's own timer, unless the next head has begun."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._ending is None:
            self._ending = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


class HttpServer(uvicorn.Server):
    """A uvicorn that leaves signals to whoever runs it: `should_exit` ends it, gracefully."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def http_server(
    application: ASGIApp, *, tls: ssl.SSLContext | None = None, drain_seconds: int | None = None
) -> HttpServer:
    """A server for sockets that are bound: `await server.serve(sockets=[...])`.

    Args:
        application: Such as HttpFront.application.
        tls: None: without.
        drain_seconds: For requests under way when it ends, before they are cancelled; None: as long as it takes.
    """
    return HttpServer(
        uvicorn.Config(
            application,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            workers=1,  # else the environment decides
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
            h11_max_incomplete_event_size=HEAD_BYTES,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
    )
