"""A way to an S3 server on which things go wrong, by rule and by seed.

with FaultProxy(server.endpoint) as proxy:
    point_at(proxy.endpoint, monkeypatch)
    rule = proxy.rule("503", verb="HEAD", probability=0.2, seed=7)
    proxy.rule("lost", verb="PUT", key=r"receipts/", count=1)
    proxy.down(6)              # connections are refused for six seconds
    ...
    assert rule.injected

The verbs are S3's: GET, HEAD, PUT, DELETE, LIST, and of an upload in parts CREATE, PART, COMPLETE, ABORT, UPLOADS.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.servers.s3_faults import FAULTS, Answer, Request, Rule, Verb, request_of, without

_NOT_FORWARDED = frozenset({"expect", "transfer-encoding", "connection"})
_NOT_RETURNED = frozenset({"transfer-encoding", "connection", "date", "server", "content-length"})
#: Ports that the system gives to nobody who does not ask for them, so that one is free again after a while down.
_PORTS = range(20_000, 32_000)


@dataclass
class FaultProxy:
    """A proxy in threads of this process; other processes reach it by its port.

    Attributes:
        target: Endpoint of the real server, `http://host:port`.
        port: Its own.
        rules: The first one that hits decides.
        seen: Requests by verb.
        injected: Faults by (fault, verb).
    """

    target: str
    port: int = 0
    rules: list[Rule] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    injected: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.open: set[socket.socket] = set()
        self.first_listings: dict[str, Answer] = {}
        self.ended = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._timer: threading.Timer | None = None

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer.join()
        self.ended.set()
        self.down()

    def rule(
        self,
        fault: str,
        *,
        verb: Verb | tuple[Verb, ...] = (),
        key: str = "",
        probability: float = 1.0,
        count: float = float("inf"),
        skip: int = 0,
        seconds: float = float("inf"),
        lasting: float = 600.0,
        when: Callable[[Request], bool] = lambda _: True,
        seed: int = 0,
    ) -> Rule:
        """Add a fault, behind those that are there; see Rule."""
        if fault not in FAULTS and not re.fullmatch(r"\d{3}( \w+)?", fault):
            raise ValueError(f"{fault!r} is none of {', '.join(FAULTS)}, nor a status with or without a code")
        verbs = frozenset({verb} if isinstance(verb, str) else verb)
        until = time.monotonic() + seconds
        made = Rule(fault, verbs, re.compile(key), probability, count, skip, until, lasting, when, random.Random(seed))
        with self.lock:
            self.rules.append(made)
        return made

    def clear(self) -> None:
        """Take all rules away."""
        with self.lock:
            self.rules.clear()

    def down(self, seconds: float | None = None) -> None:
        """Reset all connections and refuse new ones; for some seconds, or until `up`."""
        with self.lock:
            server, thread, self._server = self._server, self._thread, None
        if server is not None and thread is not None:
            server.shutdown()
            server.server_close()
            thread.join()
        for connection in list(self.open):
            _reset(connection)
        if seconds is not None:
            self._timer = threading.Timer(seconds, self.up)
            self._timer.start()

    def up(self) -> None:
        """Take connections (again), at the same port."""
        with self.lock:
            if self._server is None:
                self._server = self._listen()
                self.port = self._server.server_port
                self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.05), daemon=True)
                self._thread.start()

    def _listen(self) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"proxy": self})
        for _ in range(200):
            try:
                return _Server(("127.0.0.1", self.port or random.choice(_PORTS)), handler)
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"port {self.port or _PORTS} cannot be had")

    def fault_for(self, request: Request) -> Rule | None:
        """The rule that hits a request, if any; counts both."""
        with self.lock:
            self.seen[request.verb] += 1
            found = next((rule for rule in self.rules if rule.hits(request)), None)
            if found:
                self.injected[found.fault, request.verb] += 1
            return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients that go away are nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.proxy.open.add(self.connection)

    def finish(self) -> None:
        self.proxy.open.discard(self.connection)
        if self.connection.fileno() >= 0:
            super().finish()

    def _answer(self) -> None:
        request = request_of(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        rule = self.proxy.fault_for(request)
        fault = rule.fault if rule else ""
        if rule and fault == "unread":
            self.proxy.ended.wait(rule.lasting)
            self._reset()
            return
        body = self._read_body()
        if rule and fault[:1].isdigit():
            self._refuse(fault)
        elif rule and fault == "unsent":
            self._reset()
        else:
            if rule and fault == "latency":
                self.proxy.ended.wait(rule.lasting)
            self._spoil(rule, request, self._forward(body))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self.proxy.target.removeprefix("http://"), timeout=120)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            length = int(answer.getheader("Content-Length") or len(content))
            return Answer(answer.status, answer.getheaders(), content, length)
        finally:
            connection.close()

    def _spoil(self, rule: Rule | None, request: Request, answer: Answer) -> None:
        fault = rule.fault if rule else ""
        if request.verb == "LIST" and answer.status == 200:
            first = self.proxy.first_listings.setdefault(request.target, answer)
            answer = first if fault == "stale" else answer
        half = answer.body[: len(answer.body) // 2]
        if rule and fault == "omitted":
            answer = without(answer, rule.key)
        elif fault == "flipped" and answer.body:
            at = len(half)
            answer.body = half + bytes([answer.body[at] ^ 1]) + answer.body[at + 1 :]
        elif fault == "shortened" and answer.body:
            answer.body, answer.length = half, len(half)
        if fault == "lost":
            self.close_connection = True
        elif fault in ("reset", "truncated", "stall"):
            self._break_off(fault, answer, half, rule.lasting if rule else 0.0)
        else:
            self._send_head(answer)
            self.wfile.write(answer.body)

    def _break_off(self, fault: str, answer: Answer, half: bytes, lasting: float) -> None:
        """Half of the answer, then what the fault says."""
        self.close_connection = True
        if half:
            self._send_head(answer)
            self.wfile.write(half)
            self.wfile.flush()
        if fault == "stall":
            self.proxy.ended.wait(lasting)
        if fault == "reset":
            time.sleep(0.05)  # what was sent arrives before the reset, which would throw it away
            self._reset()

    def _send_head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _NOT_RETURNED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()

    def _refuse(self, fault: str) -> None:
        status, _, code = fault.partition(" ")
        body = f"<Error><Code>{code}</Code><Message>said by a test</Message></Error>".encode() if code else b""
        body = b"" if self.command == "HEAD" else body
        self._send_head(Answer(int(status), [("Content-Type", "application/xml")], body, len(body)))
        self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        _reset(self.connection)

    def log_message(self, *values: object) -> None:
        """Say nothing."""


def _reset(connection: socket.socket) -> None:
    """End a connection at once: the other side sees a reset, whatever it was doing."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes a thread that reads
        os.close(connection.detach())  # close() waits for the files that were made of it
    except OSError:
        return  # it has ended already
