"""A service of letters behind a real HTTP server, for tests that speak to it over sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from corpuscore.errors import Expired
from corpuscore.inference.metadata import ModelCard
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Scores, Tokens
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.httpfront import HttpFront
from corpuscore.service.httpserver import http_server
from tests.scoring.letters import Letters

FINGERPRINT = "0" * 16
INFER = "/v2/models/letters/infer"
#: Seconds in which what is waited for happens, on a busy machine too.
PATIENCE_SECONDS = 30.0


class HeldLetters(Letters):
    """Letters whose passes can be held back.

    Attributes:
        waiting: Passes that are held now.
    """

    def __init__(self) -> None:
        super().__init__()
        self._free = threading.Event()
        self._free.set()
        self.waiting = 0

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Wait until nothing holds it, then score."""
        self.waiting += 1
        self._free.wait(PATIENCE_SECONDS)
        self.waiting -= 1
        return super().forward(tokens)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No pass ends in this block."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()


class StandIn(Batcher):
    def __init__(self, engine: Engine) -> None:
        self.engine, self.waiting, self.lock = engine, 0, asyncio.Lock()

    @property
    def ready(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return self.waiting

    async def infer(self, texts: list[str], deadline: float | None = None) -> Scores:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                self.waiting += 1
                try:
                    await self.lock.acquire()
                finally:
                    self.waiting -= 1
                try:
                    (scores,) = await asyncio.to_thread(lambda: list(self.engine.stream([texts])))
                finally:
                    self.lock.release()
                return scores
        except TimeoutError:
            raise Expired("late") from None


class Served:
    """A service that runs.

    Attributes:
        url: Where.
        address: The same, for sockets.
        client: Of it, for one thread.
        engine: That the service scores with.
        backend: Behind it, to be held.
        batcher: In between.
        front: Before it.
    """

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        self.address, self.url = address, f"http://127.0.0.1:{address[1]}"
        self.backend = HeldLetters()
        self.engine = Engine(self.backend, max_tokens=32, long_documents="truncate")
        self._counters = Counters({"name": "letters"})
        self.batcher = StandIn(self.engine)
        card = ModelCard.of("letters", self.engine.info, max_tokens=32, long_documents="truncate")
        self.front = HttpFront(self.batcher, card, self._counters, **options)
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        """A client, made quickly: it need not know whom to trust."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, verify=False)  # noqa: S501

    def sample(self, name: str, **labels: str) -> float:
        """A metric as it is now; 0 where it has not been counted yet."""
        return self._counters.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def served(**options: Any) -> Iterator[Served]:
    """A service on a free port of the loopback.

    Args:
        options: Of the HttpFront.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    running = Served(listening.getsockname(), **options)
    server = http_server(running.front.application, drain_seconds=5)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        with running.client:
            yield running
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool]) -> None:
    """Until something is so."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until, "it never was"
        time.sleep(0.01)
