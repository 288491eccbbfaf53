"""What the service counts: Prometheus metrics in a registry of their own.

One Counters belongs to a service; whoever does something tells it once, and each call costs a few microseconds:

    counters = Counters({"name": ..., "fingerprint": ..., "precision": ..., "backend": ...})
    counters.watch_queue(requests=..., documents=...)      once: what waits now, asked for when /metrics is read
    counters.waited(seconds)                               the batcher: a request has left the queue
    counters.passed(documents=, tokens=, seconds=)         the batcher: a pass through the model has ended
    counters.rejected(reason)                              the batcher: a document could not be scored
    counters.answered("grpc", "OK", seconds)               a front: a request has its answer, of whatever kind

Every method is thread-safe. Times are in seconds, as Prometheus has them, with buckets from a millisecond on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder

Front = Literal["grpc", "http"]

#: Upper bounds in seconds: a small text through a small model takes a millisecond, a full pass of a large one seconds.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: Upper bounds of a pass, from one short text to the budget of a large accelerator.
TOKENS = tuple(float(2**power) for power in range(4, 19))
DOCUMENTS = tuple(float(2**power) for power in range(14))


class Counters:
    """The metrics of one service.

    Args:
        model: What tells the model from others, such as its name, fingerprint, precision and backend; the labels of
            corpuscore_model_info.

    Attributes:
        registry: Where the metrics are; nothing else is in it.
    """

    def __init__(self, model: Mapping[str, str]) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        Info("corpuscore_model", "The model that is served.", registry=registry).info(dict(model))
        self._requests = Counter(
            "corpuscore_requests", "Requests answered, by front and status.", ("front", "code"), registry=registry
        )
        self._request_seconds = Histogram(
            "corpuscore_request_seconds",
            "From a request's arrival to its answer.",
            ("front",),
            registry=registry,
            buckets=SECONDS,
        )
        self._queue_seconds = Histogram(
            "corpuscore_queue_seconds", "What a request waited for the model.", registry=registry, buckets=SECONDS
        )
        self._pass_seconds = Histogram(
            "corpuscore_pass_seconds", "One pass through the model.", registry=registry, buckets=SECONDS
        )
        self._pass_tokens = Histogram(
            "corpuscore_pass_tokens", "Tokens of one pass.", registry=registry, buckets=TOKENS
        )
        self._pass_documents = Histogram(
            "corpuscore_pass_documents", "Documents of one pass.", registry=registry, buckets=DOCUMENTS
        )
        self._documents = Counter("corpuscore_documents", "Documents through the model.", registry=registry)
        self._tokens = Counter("corpuscore_tokens", "Tokens through the model.", registry=registry)
        self._rejects = Counter(
            "corpuscore_rejects", "Documents that could not be scored, by reason.", ("reason",), registry=registry
        )
        self._waiting_requests = Gauge("corpuscore_queue_requests", "Requests that wait now.", registry=registry)
        self._waiting_documents = Gauge("corpuscore_queue_documents", "Documents that wait now.", registry=registry)

    def watch_queue(self, *, requests: Callable[[], int], documents: Callable[[], int]) -> None:
        """Name what tells how many requests and documents wait; asked from any thread when the metrics are read."""
        self._waiting_requests.set_function(requests)
        self._waiting_documents.set_function(documents)

    def waited(self, seconds: float) -> None:
        """A request has left the queue for the model after so many seconds."""
        self._queue_seconds.observe(seconds)

    def passed(self, *, documents: int, tokens: int, seconds: float) -> None:
        """A pass through the model has ended.

        Args:
            documents: Of the pass, rejects included.
            tokens: That went through the model.
            seconds: What the pass took.
        """
        self._pass_seconds.observe(seconds)
        self._pass_tokens.observe(tokens)
        self._pass_documents.observe(documents)
        self._documents.inc(documents)
        self._tokens.inc(tokens)

    def rejected(self, reason: str, documents: int = 1) -> None:
        """So many documents could not be scored, for one of the few reasons that rejects have."""
        self._rejects.labels(reason).inc(documents)

    def answered(self, front: Front, code: str, seconds: float) -> None:
        """A request has its answer, or its client has gone.

        Args:
            front: Which door it came through.
            code: The status in the front's own words, such as OK, RESOURCE_EXHAUSTED, 200 or 429.
            seconds: Since the request came.
        """
        self._requests.labels(front, code).inc()
        self._request_seconds.labels(front).observe(seconds)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as they are now, and their media type: OpenMetrics where the header asks for it, else text."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type
