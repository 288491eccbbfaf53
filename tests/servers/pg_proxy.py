"""A way to a real PostgreSQL server that breaks where a test says: before a message, in it, or instead of its answer.

It reads PostgreSQL's protocol as far as messages go (a type, a length, a body), so that a connection can be cut exactly
before, in or after the COMMIT of a load. TLS is declined, as a server without a certificate does.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_ENCRYPTION_REQUESTS = (80877103, 80877104)  # SSLRequest, GSSENCRequest
_CANCEL_REQUEST = 80877102
_READY = b"Z"
_ACTED_ON = ("Q", "S", "c")  # a simple query, the end of an extended one, the end of a COPY


class Fault(Enum):
    """What becomes of a connection at a message of its client."""

    CUT = "the message does not arrive, and the connection ends"
    HALF = "half of the message arrives, and the connection ends"
    ANSWER = "the message arrives and is carried out, and the connection ends instead of an answer"
    STALL = "neither the message nor anything after it arrives, and the connection stays open"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a client.

    Attributes:
        connection: Which connection of the proxy, from 0.
        number: Which message of all connections, from 0.
        kind: Its type: `Q` a simple query, `P` parse, `B` bind, `E` execute, `S` sync, `d` rows of a COPY; empty for
            the first one of a connection, which has none.
        body: What follows the length.
    """

    connection: int
    number: int
    kind: str
    body: bytes

    def says(self, words: str) -> bool:
        """Whether it is a statement with these words."""
        return self.kind in ("Q", "P") and words.encode() in self.body


#: Called with each message of a client, which waits for the answer; None lets it pass.
Rule = Callable[[Message], Fault | None]


def once(words: str, fault: Fault) -> Rule:
    """A fault at the first statement with these words."""
    return nth(1, words, fault)


def nth(count: int, words: str, fault: Fault) -> Rule:
    """A fault at the n-th statement with these words, counted from 1."""
    left = [count]

    def rule(message: Message) -> Fault | None:
        if message.says(words):
            left[0] -= 1
            return fault if left[0] == 0 else None
        return None

    return rule


def after(words: str, rule: Rule) -> Rule:
    """A rule that is asked only when a statement with these words has passed."""
    passed: list[Message] = []

    def later(message: Message) -> Fault | None:
        if message.says(words):
            passed.append(message)
        return rule(message) if passed else None

    return later


def at_message(number: int, fault: Fault) -> Rule:
    """A fault at the n-th message from now on, whatever it is, counted from 0."""
    left = [number]

    def rule(_: Message) -> Fault | None:
        left[0] -= 1
        return fault if left[0] == -1 else None

    return rule


class PgProxy:
    """The proxy: its address, its rule, which may be set at any time, and what came of it.

    Attributes:
        url: The server's URL through the proxy.
        upstream: Its own URL.
        rule: What decides on each message; None lets all pass.
        faults: The messages at which a fault happened, with what it was.
        connections: How many clients came.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.upstream = url
        self._socket = Path(parse_qs(parts.query)["host"][0]) / f".s.PGSQL.{parts.port or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = f"{parts.username}@" if parts.username else ""
        self.url = f"postgresql://{user}127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.rule: Rule | None = None
        self.faults: list[tuple[Message, Fault]] = []
        self.connections = 0
        self._messages = 0
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._refusing = False

    def serve(self) -> None:
        """Take connections until close()."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve_one, args=(client, number), daemon=True).start()

    def cut_all(self) -> None:
        """End every connection that is open; new ones are taken."""
        with self._guard:
            ending = list(self._open)
        for one in ending:
            _end(one)

    def refuse(self, refusing: bool = True) -> None:
        """Whether new connections end at once, as where a server is being restarted."""
        self._refusing = refusing

    def close(self) -> None:
        """End the proxy and every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def _serve_one(self, client: socket.socket, number: int) -> None:
        server = socket.socket(socket.AF_UNIX)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self._open |= {client, server}
        try:
            with suppress(OSError, EOFError):
                server.connect(str(self._socket))
                _Connection(self, client, server, number).run()
        finally:
            for one in (client, server):
                _end(one)
            with self._guard:
                self._open -= {client, server}

    def decide(self, connection: int, kind: str, body: bytes) -> Fault | None:
        """What becomes of a message."""
        with self._guard:
            message = Message(connection, self._messages, kind, body)
            self._messages += 1
        fault = self.rule(message) if self.rule else None
        if fault:
            self.faults.append((message, fault))
        return fault


class _Connection:
    """One client and the server's end for it."""

    def __init__(self, proxy: PgProxy, client: socket.socket, server: socket.socket, number: int) -> None:
        self._proxy, self._client, self._server, self._number = proxy, client, server, number
        self._mute = threading.Event()  # the server's answers are read, and lost
        self._stalled = threading.Event()

    def run(self) -> None:
        """Carry messages both ways until one side ends."""
        if not self._start():
            return
        back = threading.Thread(target=self._answers, daemon=True)
        back.start()
        with suppress(OSError, EOFError):
            while self._carry():
                pass
        if self._mute.is_set():
            back.join()

    def _start(self) -> bool:
        """Decline encryption, then hand the first message on, which has no type."""
        while True:
            (length,) = struct.unpack("!i", _exactly(self._client, 4))
            body = _exactly(self._client, length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code in _ENCRYPTION_REQUESTS:
                self._client.sendall(b"N")
                continue
            self._deliver(b"", body)
            return bool(code != _CANCEL_REQUEST)

    def _carry(self) -> bool:
        kind = _exactly(self._client, 1)
        (length,) = struct.unpack("!i", _exactly(self._client, 4))
        return self._deliver(kind, _exactly(self._client, length - 4))

    def _deliver(self, kind: bytes, body: bytes) -> bool:
        """Hand a message to the server, or do to it what the rule says; whether others follow."""
        message = kind + struct.pack("!i", len(body) + 4) + body
        fault = self._proxy.decide(self._number, kind.decode(), body)
        if fault is Fault.STALL:
            self._stalled.set()
            while self._client.recv(65536):  # whatever the client still sends goes nowhere
                pass
            return False
        if fault is Fault.CUT:
            return False
        if fault is Fault.ANSWER:
            self._mute.set()
        self._server.sendall(message[: len(message) // 2] if fault is Fault.HALF else message)
        return fault is not Fault.HALF

    def _answers(self) -> None:
        """The server's messages, one by one; the first end of a statement whose answer is to be lost ends it all."""
        with suppress(OSError, EOFError):
            while True:
                kind = _exactly(self._server, 1)
                size = _exactly(self._server, 4)
                body = _exactly(self._server, struct.unpack("!i", size)[0] - 4)
                if self._mute.is_set():
                    if kind == _READY:
                        break
                elif not self._stalled.is_set():
                    self._client.sendall(kind + size + body)
        if not self._stalled.is_set():
            _end(self._client)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        chunk = source.recv(size - len(found))
        if not chunk:
            raise EOFError
        found += chunk
    return bytes(found)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def pg_proxy(url: str) -> Iterator[PgProxy]:
    """A proxy to the server of a URL that names a socket's folder; it and its connections end with the block."""
    proxy = PgProxy(url)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


class Hold:
    """A rule that holds a client at the n-th message that makes the server act, counted from 0, until it is let go.

    Attributes:
        reached: Set once the client is there.
    """

    def __init__(self, number: int) -> None:
        self.reached = threading.Event()
        self._left = number
        self._go_on = threading.Event()

    def __call__(self, message: Message) -> Fault | None:
        """Let a message pass, or hold it."""
        self._left -= message.kind in _ACTED_ON
        if self._left == -1 and not self.reached.is_set():
            self.reached.set()
            assert self._go_on.wait(120)
        return None

    def let_go(self) -> None:
        """Let the client go on."""
        self._go_on.set()


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.02)
