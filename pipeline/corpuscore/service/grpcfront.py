"""The gRPC door of the service: the Open Inference Protocol, and the standard health service beside it.

Each request is looked at before its body is read: its token, and whether there is room for it. Statuses are those of
refusals.py; one that may be sent again has a RetryInfo and grpc-retry-pushback-ms. A message beyond the bound is
refused by gRPC itself, with RESOURCE_EXHAUSTED and without a hint, since it never will be taken.

Source: https://github.com/kserve/open-inference-protocol, https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from corpuscore import __version__
from corpuscore.errors import CorpuscoreError, MessageError, ModelError, unforeseen
from corpuscore.inference import open_inference_pb2 as messages
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.tensors import check_outputs, response_of, texts_of
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.refusals import meaning_of, unauthorised, unknown_model

_log = logging.getLogger(__name__)

_SERVICE = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

#: Bytes of one message, where nothing else is said.
MOST_BYTES = 16 * 2**20
#: Bodies that are read at once; others wait at their clients, since nobody knows how large they are before.
BODIES = 64
#: Seconds in which the body of a request is there.
BODY_SECONDS = 30.0
#: Seconds between two pings of a client at the least, while it has nothing to send.
_PING_SECONDS = 5
#: Calls that have come and that nobody has looked at; each is, and then answered or refused in words.
_PENDING = 100_000
#: For calls whose answers are ready to be sent when the server stops, in seconds.
_STOP_SECONDS = 1.0


class GrpcFront:
    """The server; made and used in one event loop.

    Args:
        batcher: Scores texts, and says whether it is ready.
        card: What the model says of itself.
        counters: Told of each answer to an inference request.
        token: What clients show as `authorization: Bearer ...`; None: nothing is asked for.
        most_bytes: Of one message.
    """

    def __init__(
        self,
        batcher: Batcher,
        card: ModelCard,
        counters: Counters,
        *,
        token: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._batcher, self._card, self._counters = batcher, card, counters
        self._token = None if token is None else f"Bearer {token}".encode()
        self._coming = 0
        self._bodies = asyncio.Semaphore(BODIES)
        self._health = health.aio.HealthServicer()
        self.server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", most_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second service shares the port, unseen
                (
                    "grpc.server.max_pending_requests",
                    _PENDING,
                ),  # else gRPC cancels some of more than 1000, without a word
                ("grpc.server.max_pending_requests_hard_limit", _PENDING),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_SECONDS * 1000),
            ]
        )
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE.full_name, self._handlers())]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)

    async def start(self) -> None:
        """Answer, at the ports that the server has been given."""
        await self._set_health(_SERVING)
        await self.server.start()

    async def not_ready(self) -> None:
        """Tell whoever asks that this service takes no more."""
        await self._set_health(_NOT_SERVING)

    async def stop(self) -> None:
        """Close all connections, once answers that are ready are sent."""
        await self.server.stop(_STOP_SECONDS)

    async def _set_health(self, status: int) -> None:
        for service in ("", _SERVICE.full_name, self._card.name):
            await self._health.set(service, status)

    def _handlers(self) -> dict[str, Any]:
        """A handler for each method of the protocol, named as it."""
        methods = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._guarded(getattr(self, method.name)),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in _SERVICE.methods
            if method.name != "ModelInfer"
        }
        # On the wire it is what the protocol says; for gRPC's server it is a stream, whose only message is read when
        # the rest of the request has been looked at.
        infer = grpc.stream_unary_rpc_method_handler(
            self.ModelInfer, response_serializer=messages.ModelInferResponse.SerializeToString
        )
        return {**methods, "ModelInfer": infer}

    def _guarded(self, method: Callable[[Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                self._admit(context)
                return method(request)
            except CorpuscoreError as error:
                return await _refuse(context, error)

        return guarded

    def ServerLive(self, _request: messages.ServerLiveRequest) -> messages.ServerLiveResponse:  # noqa: N802  # the protocol's
        """Whether the server answers."""
        return messages.ServerLiveResponse(live=True)

    def ServerReady(self, _request: messages.ServerReadyRequest) -> messages.ServerReadyResponse:  # noqa: N802
        """Whether it takes requests."""
        return messages.ServerReadyResponse(ready=self._batcher.ready)

    def ModelReady(self, request: messages.ModelReadyRequest) -> messages.ModelReadyResponse:  # noqa: N802
        """Whether it takes requests for this model."""
        self._check_model(request.name, request.version)
        return messages.ModelReadyResponse(ready=self._batcher.ready)

    def ServerMetadata(self, _request: messages.ServerMetadataRequest) -> messages.ServerMetadataResponse:  # noqa: N802
        """Which server it is."""
        return messages.ServerMetadataResponse(name="corpuscore", version=__version__)

    def ModelMetadata(self, request: messages.ModelMetadataRequest) -> messages.ModelMetadataResponse:  # noqa: N802
        """What the model says of itself."""
        self._check_model(request.name, request.version)
        return self._card.to_response()

    async def ModelInfer(self, _requests: Any, context: Any) -> messages.ModelInferResponse:  # noqa: N802
        """Scores of texts."""
        arrived = time.monotonic()
        status = "CANCELLED"
        try:
            response = await self._scored(context, arrived)
            status = "OK"
            return response
        except CorpuscoreError as error:
            status = meaning_of(error).grpc
            await _refuse(context, error)
        except Exception as error:
            _log.exception("A request was not answered, for a reason that was not foreseen.")
            status = "INTERNAL"
            await _refuse(context, unforeseen(ModelError, "Answering", error))
        finally:
            self._counters.answered("grpc", status, time.monotonic() - arrived)

    async def _scored(self, context: Any, arrived: float) -> messages.ModelInferResponse:
        self._admit(context)
        self._batcher.admission.check_room(self._coming)
        remaining = context.time_remaining()
        self._coming += 1
        try:
            async with self._bodies:
                request = await _read(context)
        finally:
            self._coming -= 1
        self._check_model(request.model_name, request.model_version)
        outputs = [tensor.name for tensor in request.outputs]
        check_outputs(outputs)
        texts = texts_of(request, self._batcher.admission.most_texts)
        deadline = None if remaining is None else arrived + remaining
        scores = await self._batcher.infer(texts, deadline)
        return response_of(
            scores.probabilities_DL,
            scores.tokens_D,
            scores.truncated_D,
            scores.failed,
            model=self._card.name,
            version=self._card.fingerprint,
            id=request.id,
            outputs=outputs,
        )

    def _admit(self, context: Any) -> None:
        """Look at the token."""
        if self._token is None:
            return
        shown = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        said = str(shown[0]) if len(shown) == 1 else ""
        scheme, _, token = said.partition(" ")
        if not hmac.compare_digest(f"{scheme.capitalize()} {token.strip()}".encode(), self._token):
            raise unauthorised()

    def _check_model(self, name: str, version: str) -> None:
        error = unknown_model(name, version, self._card.name, self._card.fingerprint)
        if error is not None:
            raise error


async def _read(context: Any) -> messages.ModelInferRequest:
    """The message of a request.

    Raises:
        MessageError: It is not there, or is none.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await context.read()
    except TimeoutError:
        raise MessageError(
            f"The request was not there within {BODY_SECONDS:g} s",
            next_step="send it in one go, or in several requests",
        ) from None
    if body is grpc.aio.EOF:
        raise MessageError("A call without a request", next_step="send one ModelInferRequest")
    request = messages.ModelInferRequest()
    try:
        request.MergeFromString(body)
    except DecodeError:
        raise MessageError(
            f"{len(body)} bytes that are no ModelInferRequest",
            rule="Names and numbers are those of the Open Inference Protocol v2",
            next_step="use a client of that protocol",
        ) from None
    return request


async def _refuse(context: Any, error: CorpuscoreError) -> NoReturn:
    """End a call with the status of an error, in its words."""
    meaning = meaning_of(error)
    code = getattr(grpc.StatusCode, meaning.grpc)
    said: list[tuple[str, str | bytes]] = []
    if meaning.retry_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(meaning.retry_seconds * 1000))
        packed = AnyMessage()
        packed.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=code.value[0], message=str(error), details=[packed])
        said = [
            ("grpc-retry-pushback-ms", str(delay.ToMilliseconds())),
            ("grpc-status-details-bin", status.SerializeToString()),
        ]
    try:
        await context.abort(code, str(error), tuple(said))
    except grpc.aio.InternalError:  # the call has ended before, such as with a message that gRPC refuses by itself
        raise asyncio.CancelledError from None
    raise AssertionError  # abort raises
