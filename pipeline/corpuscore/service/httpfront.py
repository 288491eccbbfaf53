"""The HTTP door of the service: the Open Inference Protocol in JSON, health, metrics, and a page to try it on.

    GET  /                                                  the page
    GET  /livez, /readyz                                    for Kubernetes
    GET  /metrics                                           for Prometheus
    GET  /v2, /v2/health/live, /v2/health/ready
    GET  /v2/models/NAME[/versions/FINGERPRINT][/ready]
    POST /v2/models/NAME[/versions/FINGERPRINT]/infer

An error is {"error": "..."} with a status that says whose it is: 400, 401, 404, 405, 408, 413 and 415 are the
client's; 429 and 503 have Retry-After; 504 is a deadline that has passed. A deadline is given in seconds by the header
Request-Timeout, or in microseconds by the request's parameter `timeout`.

Source: https://github.com/kserve/open-inference-protocol; Triton's binary tensor data and schedule policy extensions.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from corpuscore import __version__
from corpuscore.errors import CorpuscoreError
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.tensors import MOST_TEXTS
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.httpbody import Body, Refusal, Room, unless_gone
from corpuscore.service.httptensors import (
    HEADER_LENGTH,
    read_header_length,
    read_request,
    read_timeout,
    write_response,
)
from corpuscore.service.page import Page
from corpuscore.service.refusals import meaning_of, unauthorised, unknown_model

Endpoint = Callable[[Request], Awaitable[Response]]

#: What the protocol calls what is offered beyond it.
EXTENSIONS = ("binary_tensor_data", "schedule_policy")
#: The status that is counted for a client that has gone; nobody sees it.
GONE = 499


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may take.

    Attributes:
        body_bytes: Of one request.
        all_body_bytes: Of all requests together that are being read or worked on.
        body_seconds: In which a body is there.
        documents: Of one request.
    """

    body_bytes: int = 16 * 2**20
    all_body_bytes: int = 128 * 2**20
    body_seconds: float = 30.0
    documents: int = MOST_TEXTS


class HttpFront:
    """Answers HTTP for one model.

    Args:
        batcher: Scores texts, and says whether it is ready.
        card: What the model says of itself.
        counters: Told of each answer to an inference request.
        token: What clients show as `Authorization: Bearer ...`; None: nothing is asked for.
        metrics_need_token: Whether /metrics asks for it too.
        limits: What a client may take.

    Attributes:
        application: What uvicorn runs.
        room: For the bodies of requests.
    """

    def __init__(
        self,
        batcher: Batcher,
        card: ModelCard,
        counters: Counters,
        *,
        token: str | None = None,
        metrics_need_token: bool = False,
        limits: HttpLimits | None = None,
    ) -> None:
        self._batcher, self._card, self._counters = batcher, card, counters
        self._token = token.encode() if token is not None else None
        self._limits = limits or HttpLimits()
        self._reading = 0
        self.room = Room(self._limits.all_body_bytes)
        page, guarded = Page(card.name), self._guarded
        model = [  # routes are tried in their order
            Route(f"/v2/models/{{name}}{version}{path}", endpoint, methods=[method])
            for version in ("", "/versions/{version}")
            for path, endpoint, method in (
                ("/infer", self._infer, "POST"),
                ("/ready", guarded(self._model_ready), "GET"),
                ("", guarded(self._model), "GET"),
            )
        ]
        self.application = Starlette(
            routes=[
                *model,
                Route("/", _answering(page.response)),
                Route("/livez", _answering(lambda: PlainTextResponse("ok\n"))),
                Route("/readyz", self._readyz),
                Route("/metrics", guarded(self._metrics) if metrics_need_token else self._metrics),
                Route("/v2", guarded(self._server)),
                Route("/v2/health/live", guarded(_answering(lambda: _json({"live": True})))),
                Route("/v2/health/ready", guarded(self._server_ready)),
            ],
            exception_handlers={HTTPException: _refused, CorpuscoreError: _refused, Exception: _unforeseen},
        )

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for whoever has the token."""

        @wraps(endpoint)
        async def guarded(request: Request) -> Response:
            self._admit(request)
            return await endpoint(request)

        return guarded

    def _admit(self, request: Request) -> None:
        """Look at the token.

        Raises:
            Unauthorised: It is none or another.
        """
        if self._token is None:
            return
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode("latin-1"), self._token)  # as it was sent
        if scheme.lower() != "bearer" or not right:
            raise unauthorised()

    async def _readyz(self, request: Request) -> Response:
        ready = self._batcher.ready
        return PlainTextResponse("ok\n" if ready else "not ready\n", 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        page, media_type = self._counters.page(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": media_type})

    async def _server(self, request: Request) -> Response:
        return _json({"name": "corpuscore", "version": __version__, "extensions": list(EXTENSIONS)})

    async def _server_ready(self, request: Request) -> Response:
        return _json({"ready": self._batcher.ready}, 200 if self._batcher.ready else 503)

    async def _model(self, request: Request) -> Response:
        self._check_model(request)
        return _json(self._card.to_json())

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return _json({"name": self._card.name, "ready": self._batcher.ready}, 200 if self._batcher.ready else 503)

    def _check_model(self, request: Request) -> None:
        """Look at the names in the path.

        Raises:
            UnknownModel: This model or version is not here.
        """
        path = request.path_params
        error = unknown_model(path["name"], path.get("version", ""), self._card.name, self._card.fingerprint)
        if error is not None:
            raise error

    async def _infer(self, request: Request) -> Response:
        """Answer an inference request, whatever it is, and count it."""
        arrived = time.monotonic()
        status = GONE
        try:
            with self.room.body() as body:
                response = await self._answer(request, body, arrived)
            status = response.status_code
            if not self._batcher.ready:
                response.headers["connection"] = "close"  # while it can be said: soon this door closes
            return response
        except Exception:
            status = 500
            raise
        finally:
            self._counters.answered("http", str(status), time.monotonic() - arrived)

    async def _answer(self, request: Request, body: Body, arrived: float) -> Response:
        try:
            self._admit(request)
            self._check_model(request)
            return await self._scored(request, body, arrived)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except (HTTPException, CorpuscoreError) as error:
            status, words, headers = _told(error)
            return (_json if body.complete else _unread)({"error": words}, status, headers)

    async def _scored(self, request: Request, body: Body, arrived: float) -> Response:
        limits, headers = self._limits, request.headers
        header_timeout = read_timeout(headers.get("request-timeout"))
        header_length = read_header_length(headers.get(HEADER_LENGTH))
        self._batcher.admission.check_room(self._reading)
        self._reading += 1
        try:
            received = await body.read(request, most_bytes=limits.body_bytes, seconds=limits.body_seconds)
        finally:
            self._reading -= 1
        asked = read_request(received, header_length, limits.documents)
        body.drop()
        timeouts = [seconds for seconds in (header_timeout, asked.timeout_seconds) if seconds is not None]
        deadline = arrived + min(timeouts) if timeouts else None
        scores = await unless_gone(self._batcher.infer(asked.texts, deadline), request.receive)
        head = {"model_name": self._card.name, "model_version": self._card.fingerprint}
        written, json_bytes = write_response(head, asked, self._card.labels, scores)
        if json_bytes is None:
            return Response(written, media_type="application/json")
        length = {HEADER_LENGTH: str(json_bytes)}
        return Response(written, media_type="application/octet-stream", headers=length)


def _answering(respond: Callable[[], Response]) -> Endpoint:
    """An endpoint that is the same for every request."""

    async def answering(_request: Request) -> Response:
        return respond()

    return answering


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _unread(value: dict[str, Any], status: int, headers: dict[str, str] | None) -> Response:
    """The same for a request whose body has not been read to its end."""
    return Refusal(orjson.dumps(value), status, headers)


def _told(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, words and headers of an error made on purpose."""
    if isinstance(error, CorpuscoreError):
        meaning = meaning_of(error)
        headers = {"www-authenticate": "Bearer"} if meaning.http == 401 else {}
        if meaning.retry_seconds is not None:
            headers["retry-after"] = str(math.ceil(meaning.retry_seconds))
        return meaning.http, str(error), headers
    if isinstance(error, HTTPException):
        return error.status_code, error.detail, dict(error.headers or {})
    raise error


async def _refused(request: Request, error: Exception) -> Response:
    """What an endpoint or the router refuses."""
    status, words, headers = _told(error)
    if words == HTTPStatus(status).phrase:  # the router's own
        words = f"{request.method} {request.url.path[:200]}: {words}. Next: look at the paths of the protocol"
    return _json({"error": words}, status, headers)


async def _unforeseen(_request: Request, _error: Exception) -> Response:
    """What nobody foresaw; its traceback goes to the log, where uvicorn writes it."""
    return _json({"error": "This was not foreseen. Next: look into the service's log"}, 500)
