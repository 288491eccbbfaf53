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

from corpuscore.inference.metadata import ModelCard
from corpuscore.scoring.engine import Engine
from corpuscore.service.admission import Admission
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.httpfront import HttpFront
from corpuscore.service.httpserver import http_server
from tests.service.held import Held

FINGERPRINT = "0" * 16
INFER = "/v2/models/letters/infer"
#: Seconds in which what is waited for happens, on a busy machine too.
PATIENCE_SECONDS = 30.0


class Served:
    """A service that runs; made in its loop.

    Args:
        port: Of the loopback.
        backend: The model; its passes go as they come, but in `held`.
        most_requests: That wait.
        options: Of the HttpFront.

    Attributes:
        url: Where.
        address: The same, for sockets.
        client: Of it, for one thread.
        loop: In which it runs.
        engine, backend, batcher, front, server: What it is made of, from the model to the door.
    """

    def __init__(self, port: int, backend: Held, most_requests: int, **options: Any) -> None:
        self.address, self.url = ("127.0.0.1", port), f"http://127.0.0.1:{port}"
        self.backend, self.loop = backend, asyncio.get_running_loop()
        self.engine = Engine(backend, max_tokens=32, long_documents="truncate")
        self._counters = Counters({"name": "letters"})
        self.batcher = Batcher(self.engine, self._counters, Admission(most_requests), max_wait_seconds=0.0)
        card = ModelCard.of("letters", self.engine.info, max_tokens=32, long_documents="truncate")
        self.front = HttpFront(self.batcher, card, self._counters, **options)
        self.server = http_server(self.front.application, drain_seconds=5)
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        """A client, made quickly: it need not know whom to trust."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, verify=False)  # noqa: S501

    def sample(self, name: str, **labels: str) -> float:
        """A metric as it is now; 0 where it has not been counted yet."""
        return self._counters.registry.get_sample_value(name, labels) or 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing new gets through the model in this block."""
        self.backend.hold()
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let what waits go on."""
        self.backend.free = True
        self.backend.let_go(1_000)

    @contextmanager
    def busy(self, waiting: int = 0) -> Iterator[None]:
        """One request is in the model in this block and stays there, and so many others wait for it."""
        begun = len(self.backend.begun)
        asked = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["stays"]}]}

        def stay() -> None:
            with self.new_client() as client:
                assert client.post(INFER, json=asked).status_code == 200

        threads = [threading.Thread(target=stay) for _ in range(1 + waiting)]
        with self.held():
            threads[0].start()
            wait_until(lambda: len(self.backend.begun) > begun)
            for thread in threads[1:]:
                thread.start()
            wait_until(lambda: self.batcher.depth == waiting)
            yield
        for thread in threads:
            thread.join()


@contextmanager
def served(*, backend: Held | None = None, most_requests: int = 1_000, **options: Any) -> Iterator[Served]:
    """A service on a free port of the loopback; see Served."""
    listening = socket.create_server(("127.0.0.1", 0))
    made: list[Served] = []
    ends = threading.Event()

    async def serve() -> None:
        running = Served(listening.getsockname()[1], backend or Held(free=True), most_requests, **options)
        serving = asyncio.create_task(running.server.serve(sockets=[listening]))
        made.append(running)
        while not ends.is_set():
            await asyncio.sleep(0.02)
        running.server.should_exit = True
        await serving
        running.batcher.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    wait_until(lambda: bool(made) or not thread.is_alive())
    try:
        with made[0].client:
            yield made[0]
    finally:
        made[0].let_go()
        ends.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool]) -> None:
    """Until something is so."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until, "it never was"
        time.sleep(0.01)
