"""A model whose passes a test lets go one by one, and the batcher around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from corpuscore.records import LongDocuments
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Tokens
from corpuscore.service.admission import Admission
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from tests.scoring.letters import Letters, LettersByCore


class Held(Letters):
    """Letters whose passes wait to be let go.

    Attributes:
        begun: The texts of each pass that has begun, in its order.
        free: Lets passes go as they come.
    """

    def __init__(self, *, free: bool = False, memory: int = 10**9) -> None:
        super().__init__(memory)
        self.begun: list[list[str]] = []
        self.free = free
        self._passes = threading.Semaphore(0)

    def let_go(self, passes: int = 1) -> None:
        """Let so many passes end."""
        self._passes.release(passes)

    def hold(self) -> None:
        """Let no pass go from now on."""
        self.free = False
        while self._passes.acquire(blocking=False):
            pass

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Wait, then score."""
        pieces = np.split(tokens.ids, tokens.offsets[1:-1])
        self.begun.append(["".join(map(chr, piece[1:-1])) for piece in pieces])
        if not self.free:
            assert self._passes.acquire(timeout=60)
        return super().forward(tokens)


class HeldByCore(Held, LettersByCore):
    """The same, with two cores that have a pass each."""


@asynccontextmanager
async def batcher(
    backend: Letters,
    *,
    budget: int = 64,
    how: LongDocuments = "truncate",
    admission: Admission | None = None,
    max_wait_seconds: float = 0.0,
) -> AsyncIterator[Batcher]:
    """A batcher with windows of 30 letters, ended at the end of the block."""
    engine = Engine(backend, max_tokens=32, long_documents=how, token_budget=budget)
    made = Batcher(engine, Counters({"name": "letters"}), admission, max_wait_seconds=max_wait_seconds)
    try:
        yield made
    finally:
        if isinstance(backend, Held):
            backend.free = True
            backend.let_go(1_000)
        made.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine in a loop of its own."""
    asyncio.run(test)
