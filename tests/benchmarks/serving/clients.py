"""Clients of a service, in a process of their own: so many at once, or requests that come by a clock."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from corpuscore.inference.open_inference_pb2 import ModelInferRequest
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of

_OPTIONS = [("grpc.max_receive_message_length", -1)]
#: Connections, over which the clients are spread: one carries 100 requests at a time.
_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Driven:
    """What clients saw.

    Attributes:
        documents: That were scored.
        seconds: For all of them.
        latencies: Of each request, in seconds.
    """

    documents: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Documents a second."""
        return self.documents / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in seconds, of so many percent of the requests at the most."""
        return float(np.percentile(self.latencies, share))


@dataclass(frozen=True, slots=True)
class Door:
    """A model at a service.

    Attributes:
        port: Of gRPC, on loopback.
        model: Its name there.
        labels: That it has.
    """

    port: int
    model: str
    labels: int


def closed(door: Door, texts: Sequence[str], *, clients: int, each: int) -> Driven:
    """So many clients, each with one request under way, of so many texts, until all texts are scored once."""
    return _elsewhere(_closed, door, list(texts), clients, each)


def paced(door: Door, texts: Sequence[str], *, rate: float, each: int) -> Driven:
    """Requests at random moments, so many documents a second on average, whatever has become of those before."""
    return _elsewhere(_paced, door, list(texts), rate, each)


def _elsewhere(work: Callable[..., Coroutine[Any, Any, Driven]], *arguments: Any) -> Driven:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (work, arguments))


def _run(work: Callable[..., Coroutine[Any, Any, Driven]], arguments: tuple[Any, ...]) -> Driven:
    return asyncio.run(work(*arguments))


def _requests(model: str, texts: list[str], each: int) -> list[ModelInferRequest]:
    return [request_of(model, texts[start : start + each]) for start in range(0, len(texts), each)]


async def _closed(door: Door, texts: list[str], clients: int, each: int) -> Driven:
    requests = iter(_requests(door.model, texts, each))
    latencies: list[float] = []
    channels = _channels(door.port)

    async def client(number: int) -> None:
        stub = GRPCInferenceServiceStub(channels[number % _CHANNELS])
        for request in requests:
            await _asked(stub, request, door.labels, latencies)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    seconds = time.perf_counter() - began
    await asyncio.gather(*(channel.close() for channel in channels))
    return Driven(len(texts), seconds, latencies)


async def _paced(door: Door, texts: list[str], rate: float, each: int) -> Driven:
    chance = random.Random(0)
    latencies: list[float] = []
    channels = _channels(door.port)
    stubs = [GRPCInferenceServiceStub(channel) for channel in channels]
    began = at = time.perf_counter()
    asked = []
    for number, request in enumerate(_requests(door.model, texts, each)):
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        asked.append(asyncio.create_task(_asked(stubs[number % _CHANNELS], request, door.labels, latencies)))
        at += chance.expovariate(rate / each)
    await asyncio.gather(*asked)
    seconds = time.perf_counter() - began
    await asyncio.gather(*(channel.close() for channel in channels))
    return Driven(len(texts), seconds, latencies)


def _channels(port: int) -> list[grpc.aio.Channel]:
    return [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        for _ in range(_CHANNELS)
    ]


async def _asked(
    stub: GRPCInferenceServiceStub, request: ModelInferRequest, labels: int, latencies: list[float]
) -> None:
    began = time.perf_counter()
    response = await stub.ModelInfer(request)
    latencies.append(time.perf_counter() - began)
    rows = scores_of(response, request.inputs[0].shape[0], labels).probabilities_DL
    if not np.isfinite(rows).all():
        raise AssertionError("a row is not finite")
