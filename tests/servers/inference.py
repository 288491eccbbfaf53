"""A gRPC server of the Open Inference Protocol whose behaviour a test chooses, request by request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelInferResponse, ModelMetadataResponse, ServerReadyResponse
from corpuscore.inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from corpuscore.inference.tensors import response_of, texts_of
from tests.scoring.letters import Letters, letter_scores

Rows = npt.NDArray[np.float32]
CARD = ModelCard.of("letters", Letters.info, max_tokens=512, long_documents="truncate")


@dataclass
class Script(GRPCInferenceServiceServicer):
    """Scores of letters, unless the test says otherwise.

    Attributes:
        card: What the metadata says.
        version: That answers carry.
        plain: Whether it says no more of itself than other makers' servers do.
        before: Called with the texts and the context before they are scored; may abort.
        change: Makes other rows of the right ones.
        requests: The texts of each request that came.
        shown: The authorization of each.
        most: Requests that were under way at once.
    """

    card: ModelCard = CARD
    version: str = CARD.fingerprint
    plain: bool = False
    before: Callable[[list[str], Any], None] = lambda _texts, _context: None
    change: Callable[[list[str], Rows], Rows] = lambda _texts, rows: rows
    requests: list[list[str]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    most: int = 0
    _under_way: int = 0
    _counting: Any = field(default_factory=threading.Lock)

    def ServerReady(self, _request: Any, _context: Any) -> ServerReadyResponse:  # noqa: N802  # the protocol's
        """It is."""
        return ServerReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> ModelMetadataResponse:  # noqa: N802
        """The card."""
        if request.name != self.card.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        said = self.card.to_response()
        if self.plain:
            said.properties.clear()
        return said

    def ModelInfer(self, request: Any, context: Any) -> ModelInferResponse:  # noqa: N802
        """Rows of letters."""
        texts = texts_of(request)
        with self._counting:
            self.requests.append(texts)
            self.shown += [str(value) for key, value in context.invocation_metadata() if key == "authorization"]
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            self.before(texts, context)
        finally:
            with self._counting:
                self._under_way -= 1
        rows = np.array([letter_scores(text) for text in texts], np.float32).reshape(-1, 2)
        rows = self.change(texts, rows)
        tokens = np.array([len(text) + 2 for text in texts], np.int32)
        outputs = ("probabilities",) if self.plain else ()
        return response_of(rows, tokens, tokens < 0, {}, model=self.card.name, version=self.version, outputs=outputs)

    def is_another_model(self) -> None:
        """From now on, as after a deployment."""
        other = "f" * 16
        self.card = replace(self.card, fingerprint=other, versions=(other,))
        self.version = other


@contextmanager
def answering(
    script: Script, port: int = 0, credentials: grpc.ServerCredentials | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The address of the model at a server that ends with the block."""
    server = grpc.server(ThreadPoolExecutor(80), options=[("grpc.so_reuseport", 0)])
    add_GRPCInferenceServiceServicer_to_server(script, server)
    for _ in range(100):  # until the port of a server that has just ended is free
        try:
            where = f"{host}:{port}"
            bound = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
            break
        except RuntimeError:
            time.sleep(0.1)
    server.start()
    try:
        yield f"grpc{'s' if credentials else ''}://{host}:{bound}/{script.card.name}"
    finally:
        server.stop(0).wait()


def expected(texts: Sequence[str]) -> Rows:
    """The right rows."""
    return np.array([letter_scores(text) for text in texts], np.float32)
