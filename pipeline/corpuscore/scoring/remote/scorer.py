"""The scorer of a model at a service: a corpus streams through requests, several under way, and comes out in order.

    read -> pools of new texts -> requests of like lengths -> the service -> Scores, when all texts of a batch are there

Identical texts of a stream are sent once. The first error ends the stream, with all that is under way.

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from corpuscore.patience import SERVICE
from corpuscore.records import ScorerInfo
from corpuscore.scoring.remote.address import service_address
from corpuscore.scoring.remote.channel import Link, link_to
from corpuscore.scoring.remote.offer import Asked, Offer, ask, changed, check_options
from corpuscore.scoring.remote.pace import MOST
from corpuscore.scoring.remote.requests import Requests, Served, Stopped
from corpuscore.scoring.remote.sizes import TOKENS, Sizes
from corpuscore.scoring.scorer import Meter, Scores
from corpuscore.scoring.texts import Text, scores_of, slices
from corpuscore.scoring.threads import Stopwatch, ahead, timed

#: A pool is closed at so many requests' worth of tokens, or so many texts.
_POOL_REQUESTS = 16
_POOL_TEXTS = 8_192
#: Documents of a batch that `score` hands to the stream.
_SCORE_TEXTS = 1_024
#: For the first word of a service whose model is planned.
_PLAN_SECONDS = 10.0


@dataclass(slots=True)
class _Pool:
    """Texts that are cut into requests together, and the batches that end with them."""

    records: list[Text] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    batches: list[list[Text]] = field(default_factory=list)
    tokens: int = 0
    members: int = 0
    requests: list[Future[None]] = field(default_factory=list)


class RemoteScorer:
    """A Scorer whose model is at a service; several streams may run at once.

    Args:
        link: The connection.
        offer: What the service has.
        request_tokens: Of one request, estimated.
    """

    def __init__(self, link: Link, offer: Offer, *, request_tokens: int = TOKENS) -> None:
        self._link, self._offer = link, offer
        self._sizes = Sizes(offer.card, request_tokens)
        self._served = Served(link, offer, self._sizes)

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint and precision, as the service says them."""
        return self._offer.info

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [D, L] in input order; a row of NaN where a text cannot be scored even alone.

        Raises:
            ModelError, ServiceUnavailable: As of stream.
        """
        batches = (texts[start : start + _SCORE_TEXTS] for start in range(0, len(texts), _SCORE_TEXTS))
        rows = [scores.probabilities_DL for scores in self.stream(batches)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.info.labels)), np.float32)

    def stream(self, batches: Iterable[Sequence[str]], meter: Meter | None = None) -> Iterator[Scores]:
        """One Scores for each batch, in order. Closing it early ends all requests.

        Raises:
            ModelError: The service scores no text, answers what cannot be read, or has another model than it had.
            ServiceUnavailable: It gave no scores for too long.
        """
        meter = meter if meter is not None else Meter()
        requests = Requests(self._served, meter)
        now = ask(self._link, SERVICE.seconds(), requests.pause).info
        if now.fingerprint != self.info.fingerprint:
            raise changed(self._offer, now.fingerprint)
        with (
            closing(ahead(timed(batches, meter.busy, "read"), "read")) as read,
            ThreadPoolExecutor(MOST, "corpuscore-request") as threads,
        ):
            try:
                yield from self._flow(read, requests, threads, meter)
            finally:
                requests.stop()
                threads.shutdown(wait=True, cancel_futures=True)

    def _flow(
        self, read: Iterable[Sequence[str]], requests: Requests, threads: ThreadPoolExecutor, meter: Meter
    ) -> Iterator[Scores]:
        errors: list[Exception] = []

        def score(records: list[Text], texts: list[str]) -> None:
            try:
                requests.score(records, texts)
            except Stopped:
                raise
            except Exception as error:
                errors.append(error)
                requests.stop()
                raise

        flying: deque[_Pool] = deque()
        for pool in self._pools(read):
            flying.append(pool)
            for group in self._sizes.cut(pool.texts):
                records, texts = [pool.records[at] for at in group], [pool.texts[at] for at in group]
                pool.requests.append(threads.submit(score, records, texts))
            while flying and self._is_enough(flying):
                yield from self._settled(flying.popleft(), errors, meter)
        while flying:
            yield from self._settled(flying.popleft(), errors, meter)

    def _pools(self, read: Iterable[Sequence[str]]) -> Iterator[_Pool]:
        pool = _Pool()
        for records, texts, batch in slices(read):
            pool.records += records
            pool.texts += texts
            pool.tokens += sum(map(self._sizes.estimate, texts))
            pool.members += len(batch or records)
            if batch is not None:
                pool.batches.append(batch)
            if pool.tokens >= _POOL_REQUESTS * self._sizes.tokens or pool.members >= _POOL_TEXTS:
                yield pool
                pool = _Pool()
        yield pool

    def _is_enough(self, flying: deque[_Pool]) -> bool:
        """Whether there are more requests than will be under way soon, or the oldest pool is done."""
        waiting = sum(not request.done() for pool in flying for request in pool.requests)
        return waiting >= 2 * self._link.pace.limit or all(request.done() for request in flying[0].requests)

    def _settled(self, pool: _Pool, errors: list[Exception], meter: Meter) -> Iterator[Scores]:
        with Stopwatch(meter.busy, "forward"):
            for request in pool.requests:
                try:
                    request.result()
                except Exception as error:
                    raise (errors[0] if errors else error) from None
        meter.unique_texts += len(pool.texts)
        yield from (scores_of(batch, len(self.info.labels)) for batch in pool.batches)


def load(model: str, asked: Asked, token_budget: int | None) -> RemoteScorer:
    """A scorer for the address of a service; see scoring.load_scorer.

    Raises:
        JobError: An address that is none, or options that the service does otherwise.
        ModelError: It has no such model.
        ServiceUnavailable: It does not answer for too long.
    """
    link = link_to(service_address(model))
    offer = ask(link, SERVICE.seconds())
    check_options(offer, asked)
    return RemoteScorer(link, offer, request_tokens=token_budget or TOKENS)


def describe(model: str, asked: Asked) -> ScorerInfo:
    """What load's result says of itself, by the service's metadata alone; its connection is closed again."""
    link = Link(service_address(model))
    try:
        offer = ask(link, min(_PLAN_SECONDS, SERVICE.seconds()))
    finally:
        link.close()
    check_options(offer, asked)
    return offer.info
