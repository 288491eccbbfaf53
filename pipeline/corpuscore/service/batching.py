"""Dynamic batching: requests that wait together share a pass through the model.

    infer -> admission -> tokenize (threads) -> turns -> forward (a thread a core; two on an accelerator) -> its rows

A pass begins when it is full; with room in it, when its oldest request has waited for a while and a core is free for it
(on an accelerator: when nothing else runs). Cores that are free at the same time share what waits.
Deadlines and clients that go away are looked at until a text is in a pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.errors import CorpuscoreError, Expired, ModelError, unforeseen
from corpuscore.records import Skipped
from corpuscore.scoring import packing
from corpuscore.scoring.engine import IN_FLIGHT, TOKENIZE_CALLS, Engine
from corpuscore.scoring.passes import Rows
from corpuscore.scoring.scorer import Scores, Tokens
from corpuscore.service.admission import Admission, size_of
from corpuscore.service.counters import Counters
from corpuscore.service.refusals import draining
from corpuscore.service.requests import Part, Request, Share
from corpuscore.service.turns import Turns

#: That a pass with room waits for more, in seconds, where nothing else is said.
MAX_WAIT_SECONDS = 0.005


class Batcher:
    """Scores texts of many clients with one engine; made and used in one event loop.

    Args:
        engine: The loaded model.
        counters: Told of what happens.
        admission: How much may wait.
        max_wait_seconds: That a pass with room waits for more, while nothing runs.
    """

    def __init__(
        self,
        engine: Engine,
        counters: Counters,
        admission: Admission | None = None,
        *,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._passes, self._counters = engine.passes.on_cores(), counters
        self._labels = len(engine.info.labels)
        self.admission = admission or Admission()
        self._max_wait = max_wait_seconds
        self._loop = asyncio.get_running_loop()
        self._open: set[Request] = set()
        self._answered = asyncio.Event()
        self._failure: asyncio.Future[CorpuscoreError] = self._loop.create_future()
        self._draining = self._closed = False
        self._turns = Turns(self._passes.token_budget)
        self._running = 0
        lock = threading.Lock()
        self._texts_wait, self._tokens_wait = threading.Condition(lock), threading.Condition(lock)
        counters.watch_queue(requests=lambda: self.depth, documents=lambda: self.admission.texts)
        passes = IN_FLIGHT if self._passes.pipelined else self._passes.at_once
        steps = [self._tokenize] * TOKENIZE_CALLS + [self._forward] * passes
        self._threads = [
            threading.Thread(target=self._guarded, args=(step,), name="corpuscore-service", daemon=True)
            for step in steps
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether requests are taken: not while it drains, nor after the model has failed for good."""
        return not (self._draining or self._failure.done())

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self.admission.requests

    @property
    def outstanding(self) -> int:
        """Requests that are not answered."""
        return len(self._open)

    async def infer(self, texts: Sequence[str], deadline: float | None = None) -> Scores:
        """Score texts. Cancelling it lets go of what has not reached the model.

        Args:
            texts: Of one request, in any number that is allowed.
            deadline: On the clock of time.monotonic(); None: no hurry.

        Raises:
            MessageTooLarge: More texts than one request may have.
            Overloaded: The queue is full.
            Draining: It takes no more.
            Expired: The deadline passed first.
            ModelError: The model fails for every text.
        """
        if self._failure.done():
            raise self._failure.result().with_traceback(None)
        if self._draining:
            raise draining()
        now = time.monotonic()
        if deadline is not None and deadline <= now:
            raise _expired(0.0)
        if not texts:
            return _nothing(self._labels)
        size = size_of(texts)
        self.admission.enter(len(texts), size)
        answer: asyncio.Future[Scores] = self._loop.create_future()
        request = Request(list(texts), self._labels, size, now, deadline, answer)
        self._open.add(request)
        timer = None if deadline is None else self._loop.call_later(deadline - now, self._expire, request)
        with self._texts_wait:
            self._turns.add(request)
            self._texts_wait.notify()
        try:
            return await answer
        finally:
            if timer is not None:
                timer.cancel()
            self._let_go(request)

    async def drain(self) -> None:
        """Take no more, and wait until all that was taken is answered."""
        self._draining = True
        while self._open:
            self._answered.clear()
            await self._answered.wait()

    async def failure(self) -> CorpuscoreError:
        """Wait for the error with which the model fails for good; there may be none, ever."""
        return await asyncio.shield(self._failure)

    def close(self) -> None:
        """End the threads, once a pass that runs has ended; what still waits is refused."""
        self._draining = True
        with self._texts_wait:
            self._closed = True
            self._texts_wait.notify_all()
            self._tokens_wait.notify_all()
        for thread in self._threads:
            thread.join()
        for request in list(self._open):
            if not request.answer.done():
                request.answer.set_exception(draining())

    def _expire(self, request: Request) -> None:
        if not request.answer.done():
            request.answer.set_exception(_expired(time.monotonic() - request.entered))

    def _let_go(self, request: Request) -> None:
        """Nobody waits for the request any more, since it is answered, or since its client has gone."""
        if request.waiting or not request.done:
            with self._texts_wait:
                self._turns.drop(request)
                self._leave(request)
        self._open.discard(request)
        self._answered.set()

    def _leave(self, request: Request) -> None:
        """The request is in the queue no more; once, and with the lock held."""
        if request.waiting:
            request.waiting = False
            self.admission.leave(request.count, request.size)

    def _guarded(self, step: Callable[[], None]) -> None:
        """A thread's life; with the first error that concerns all texts, everything is over."""
        try:
            step()
        except CorpuscoreError as error:
            failure = error
        except BaseException as error:
            failure = unforeseen(ModelError, "Scoring", error)
        else:
            return
        with self._texts_wait:
            self._closed = True
            self._texts_wait.notify_all()
            self._tokens_wait.notify_all()
        self._loop.call_soon_threadsafe(self._fail, failure)

    def _fail(self, error: CorpuscoreError) -> None:
        if not self._failure.done():
            self._failure.set_result(error)
        for request in self._open:
            if not request.answer.done():
                request.answer.set_exception(error)

    def _told(self, step: Callable[..., None], *arguments: object) -> None:
        """What a thread has found; if nobody foresaw it, nobody is left waiting for it."""
        try:
            step(*arguments)
        except Exception as error:
            self._fail(unforeseen(ModelError, "Answering", error))

    def _tokenize(self) -> None:
        """Tokenize what waits, many small requests in one call, until it is closed."""
        while True:
            with self._texts_wait:
                while not (chosen := self._turns.texts(time.monotonic())):
                    if self._closed:
                        return
                    self._texts_wait.wait()
                if self._closed:
                    return
                texts = [text for request, start, stop in chosen for text in request.texts[start:stop]]
            tokens, failed = self._passes.tokens_of(texts)
            self._part(chosen, tokens, failed)

    def _part(self, chosen: list[tuple[Request, int, int]], tokens: Tokens, failed: dict[int, Skipped]) -> None:
        """Give each request its own tokens."""
        parts: list[Part] = []
        counts: list[int] = []
        at = row = 0
        for request, start, stop in chosen:
            lost = {index - at: why for index, why in failed.items() if at <= index < at + stop - start}
            own = _slice(tokens, row, row + stop - start - len(lost))
            at += stop - start
            row += len(own.lengths)
            places = request.note(start, own, lost)
            counts.append(stop - start)
            if len(places):
                parts.append(Part(request, places, *self._passes.windows(own), self._labels))
            if lost:
                self._loop.call_soon_threadsafe(self._told, self._lose, request, start, lost)
        with self._tokens_wait:
            for (request, _, _), count in zip(chosen, counts, strict=True):
                request.noted += count
            for part in parts:
                self._turns.ready(part)
            self._tokens_wait.notify_all()

    def _lose(self, request: Request, start: int, lost: dict[int, Skipped]) -> None:
        """Some texts of a request cannot be tokenized."""
        request.lose({start + index: why for index, why in lost.items()})
        for why in lost.values():
            self._counters.rejected(why.reason)
        self._answer([request])

    def _forward(self) -> None:
        """Run pass after pass, until it is closed."""
        while shares := self._next():
            tokens, order_S = _together(shares)
            began = time.monotonic()
            rows_SL, failed = self._passes.finish(tokens, self._passes.start(tokens))
            seconds = time.monotonic() - began
            if rows_SL.shape != (len(tokens.lengths), self._labels):
                raise ModelError(
                    f"A pass of {len(tokens.lengths)} sequences gave scores of shape {list(rows_SL.shape)}",
                    rule=f"It gives a row of {self._labels} for each",
                    next_step="report it with the model's name",
                )
            with self._tokens_wait:
                self._running -= 1
                self._tokens_wait.notify_all()
            ordered_SL = np.empty_like(rows_SL)
            ordered_SL[order_S] = rows_SL
            why = {int(order_S[at]): reason for at, reason in failed.items()}
            self._loop.call_soon_threadsafe(self._told, self._settle, shares, ordered_SL, why, len(tokens.ids), seconds)

    def _next(self) -> list[Share]:
        """What shares the next pass, when it is time for it; nothing once it is closed."""
        with self._tokens_wait:
            while not self._closed:
                now = time.monotonic()
                wait = self._wait(now)
                if wait is not None and wait <= 0 and (shares := self._turns.take(now, self._free)):
                    self._running += 1
                    left = [
                        request
                        for request in {share.part.request for share in shares}
                        if request.waiting and request.taken
                    ]
                    for request in left:
                        self._leave(request)
                    break
                self._tokens_wait.wait(wait or None)
            else:
                return []
        for request in left:
            self._counters.waited(now - request.entered)
        return shares

    def _wait(self, now: float) -> float | None:
        """Seconds until the next pass may begin; None: nobody knows yet."""
        oldest = self._turns.oldest()
        if oldest is None or self._turns.full:
            return None if oldest is None else 0.0
        return max(0.0, oldest + self._max_wait - now) if self._free > 0 else None

    @property
    def _free(self) -> int:
        """Passes that may begin with room in them; a full one begins as soon as a thread has time for it."""
        return self._passes.at_once - self._running

    def _settle(
        self, shares: list[Share], rows_SL: Rows, failed: dict[int, Skipped], tokens: int, seconds: float
    ) -> None:
        """Give the rows of a pass, in the order of its shares, to those whose they are; answer whoever has all."""
        documents = start = 0
        for share in shares:
            chosen, part = share.sequences, share.part
            stop = start + len(chosen)
            why = {int(chosen[at - start]): reason for at, reason in failed.items() if start <= at < stop}
            documents += part.documents(chosen)
            for skipped in part.settle(self._passes, chosen, rows_SL[start:stop], why).values():
                self._counters.rejected(skipped.reason)
            start = stop
        self._counters.passed(documents=documents, tokens=tokens, seconds=seconds)
        self._answer([share.part.request for share in shares])

    def _answer(self, requests: list[Request]) -> None:
        for request in requests:
            if request.done and not (request.gone or request.answer.done()):
                request.answer.set_result(request.scores())


def _together(shares: list[Share]) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """The tokens of a pass, the longest sequences first as in the engine; which of the shares' each one is."""
    tokens = packing.concatenate(
        [
            share.part.tokens
            if share.stop - share.start == len(share.part.order_S) == 1
            else packing.take(share.part.tokens, share.sequences)
            for share in shares
        ]
    )
    order_S = np.argsort(-tokens.lengths, kind="stable")
    return (tokens if len(shares) == 1 else packing.take(tokens, order_S)), order_S


def _slice(tokens: Tokens, start: int, stop: int) -> Tokens:
    """Some of the sequences, which lie next to each other."""
    if (start, stop) == (0, len(tokens.lengths)):
        return tokens
    offsets = tokens.offsets[start : stop + 1]
    truncated = None if tokens.truncated is None else tokens.truncated[start:stop]
    return Tokens(tokens.ids[offsets[0] : offsets[-1]], offsets - offsets[0], truncated)


def _expired(seconds: float) -> Expired:
    return Expired(
        f"The deadline passed after {seconds:.3f} s in this service",
        rule="What nobody waits for is not scored",
        next_step="give it more time, or send less at once",
    )


def _nothing(labels: int) -> Scores:
    return Scores(np.empty((0, labels), np.float32), np.empty(0, np.int32), np.empty(0, np.bool_))
