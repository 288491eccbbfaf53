"""A service of the lane's model, and a way to it on which answers can be spoiled."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import grpc

from corpuscore.inference.open_inference_pb2 import ServerReadyRequest
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from infra.stack.home import CHECKOUT
from tests.faults.processes import until
from tests.servers.s3 import free_port

NAME = "tiny"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_READY_SECONDS = 120.0
_CALLS = 32


class Service:
    """`corpuscore serve` in a process of its own, always at the same port.

    Args:
        model: Folder of its model.
        folder: For what it says.
        arguments: Of it.
    """

    def __init__(self, model: Path, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self._log = folder / "service.log"
        own = {key: value for key, value in os.environ.items() if not key.startswith(("FAULTS_", "CORPUSCORE_SERVICE"))}
        self._environment = {**own, "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "pipeline"), str(CHECKOUT)])}
        self._command = [
            sys.executable, "-m", "corpuscore", "serve", "--model", str(model), "--name", NAME, "--device", "cpu",
            "--port", str(self.port), "--http-port", "0", *arguments,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its model."""
        return f"grpc://127.0.0.1:{self.port}/{NAME}"

    def start(self) -> Self:
        """Start it, and return when it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        until(self._is_ready, _READY_SECONDS, f"a service, which said {self._log.read_text()[-1000:]!r},")
        return self

    def _is_ready(self) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel, suppress(grpc.RpcError):
            stub: Any = GRPCInferenceServiceStub(channel)
            return bool(stub.ServerReady(ServerReadyRequest(), timeout=5, wait_for_ready=False).ready)
        return False

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


Spoil = Callable[[bytes, grpc.ServicerContext], bytes]


class Way:
    """Passes calls on to a service; answers to inference requests can be spoiled.

    Args:
        service: Behind it.

    Attributes:
        answers: To inference requests, that have come back so far.
        refused: Requests that the service had no room for.
    """

    def __init__(self, service: Service) -> None:
        self.answers = self.refused = 0
        self._counting = threading.Lock()
        self._spoil: Spoil | None = None
        self._first = 0
        self._left = 0
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        options += [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{service.port}", options=options)
        self._server = grpc.server(ThreadPoolExecutor(_CALLS), options=options)
        self._server.add_generic_rpc_handlers((_Handlers(self._pass),))
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}/{NAME}"
        self._server.start()

    def spoil(self, how: Spoil, *, after: int = 0, times: int = 10**9) -> None:
        """Let answers be others.

        Args:
            how: Takes an answer and gives what is sent instead.
            after: So many answers are as they are.
            times: So many after these are spoiled.
        """
        with self._counting:
            self._spoil, self._first, self._left = how, self.answers + after, times

    def heal(self) -> None:
        """Let all answers be as they are."""
        with self._counting:
            self._spoil = None

    @property
    def spoiled(self) -> bool:
        """Whether all that were to be spoiled have been."""
        return self._left == 0

    def end(self) -> None:
        """Close both ends."""
        self._server.stop(None)
        self._channel.close()

    def _pass(self, method: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            answer: bytes = self._channel.unary_unary(method)(body, timeout=context.time_remaining())
        except grpc.RpcError as error:
            with self._counting:
                self.refused += error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details())
        how = self._turn() if method == _INFER else None
        return how(answer, context) if how else answer

    def _turn(self) -> Spoil | None:
        with self._counting:
            self.answers += 1
            if self._spoil is None or self.answers <= self._first or not self._left:
                return None
            self._left -= 1
            return self._spoil


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, answer: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Any method, as bytes."""
        method = details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._answer(method, body, context))


def late(seconds: float) -> Spoil:
    """Answers that come later."""

    def spoil(answer: bytes, context: grpc.ServicerContext) -> bytes:
        over = time.monotonic() + seconds
        while context.is_active() and time.monotonic() < over:
            time.sleep(0.02)
        return answer

    return spoil
