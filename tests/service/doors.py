"""The gRPC door in the test's own loop, and what its clients call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.service.admission import Admission
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.grpcfront import GrpcFront
from tests.scoring.letters import Letters
from tests.service.held import batcher

CARD = ModelCard.of("letters", Letters.info, max_tokens=32, long_documents="truncate")


@dataclass
class Door:
    """A server and a client of it."""

    front: GrpcFront
    batcher: Batcher
    counters: Counters
    port: int
    channel: grpc.aio.Channel
    stub: Any


@asynccontextmanager
async def door(
    backend: Letters, *, admission: Admission | None = None, options: Sequence[tuple[str, Any]] = (), **settings: Any
) -> AsyncIterator[Door]:
    """A door on a free port of loopback."""
    async with batcher(backend, admission=admission) as service:
        counters = Counters({"name": "letters"})
        front = GrpcFront(service, CARD, counters, **settings)
        port = front.server.add_insecure_port("127.0.0.1:0")
        await front.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=list(options)) as channel:
                yield Door(front, service, counters, port, channel, GRPCInferenceServiceStub(channel))
        finally:
            await front.stop()
