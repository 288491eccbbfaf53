"""A service's life: open both doors, answer until a signal comes, finish what was taken, end."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from corpuscore.errors import CorpuscoreError, Expired, JobError
from corpuscore.inference.metadata import ModelCard
from corpuscore.records import LongDocuments
from corpuscore.scoring.engine import Engine
from corpuscore.service.admission import MOST_REQUESTS, Admission
from corpuscore.service.batching import MAX_WAIT_SECONDS, Batcher
from corpuscore.service.counters import Counters
from corpuscore.service.doors import Tls, bind, listening
from corpuscore.service.grpcfront import MOST_BYTES, GrpcFront
from corpuscore.service.httpfront import HttpFront, HttpLimits
from corpuscore.service.httpserver import HttpServer, http_server

log = logging.getLogger(__name__)

#: Bodies that HTTP may hold at once, in the bound of one.
_BODIES = 8
#: Seconds for which a thread may have the interpreter while another one waits for it, such as after a pass: with the
#: usual 5 ms, the model would stand still for as long as some passes of a small one take.
_SWITCH_SECONDS = 0.0005
#: For answers over HTTP that are ready to be sent when the service ends.
_STOP_SECONDS = 1

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_OTHER_LETTERS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Service:
    """How a model is served.

    Attributes:
        name: Of the model at the service.
        host: Address of this machine that is listened at.
        port, http_port: Of gRPC and of HTTP; 0 takes a free one.
        max_tokens, long_documents: As the engine was loaded with.
        max_wait_seconds: See Batcher.
        max_queue: Requests that may wait.
        max_message_bytes: Of one request.
        drain_seconds: For what was taken when the service is told to end.
        tls: None: without.
        token: None: nothing is asked for.
        token_for_metrics: Whether it is asked for at /metrics as well.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8001
    http_port: int = 8000
    max_tokens: int = 512
    long_documents: LongDocuments = "truncate"
    max_wait_seconds: float = MAX_WAIT_SECONDS
    max_queue: int = MOST_REQUESTS
    max_message_bytes: int = MOST_BYTES
    drain_seconds: float = 30.0
    tls: Tls | None = None
    token: str | None = None
    token_for_metrics: bool = False

    def check(self) -> None:
        """See what can be seen before a model is loaded.

        Raises:
            JobError: A certificate, a port, or the name.
        """
        if not _NAME.fullmatch(self.name):
            raise JobError(
                f"--name {self.name[:120]!r}",
                rule="A model's name is part of addresses: letters, digits, dot, dash and underscore",
                next_step="give another one",
            )
        if self.token_for_metrics and self.token is None:
            raise JobError("--token-for-metrics without a token", next_step="give --token-file, or leave it out")
        if self.tls is not None:
            self.tls.context()
        if self.port and self.port == self.http_port:
            raise JobError(f"--port and --http-port are both {self.port}", next_step="give another one of them")
        for port in (self.port, self.http_port):
            listening(self.host, port).close()


def name_of(model: str) -> str:
    """The name of a model at a service, from its folder or its name at the hub, without letters that are odd there."""
    folder = os.path.basename(os.path.abspath(os.path.expanduser(model)))  # noqa: PTH100, PTH111, PTH119  # a text, not a file
    plain = folder if os.path.isdir(os.path.expanduser(model)) else model.partition("@")[0]  # noqa: PTH111, PTH112
    return _OTHER_LETTERS.sub("-", plain).strip("-.")[:100] or "model"


async def serve(service: Service, engine: Engine, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was taken. A second signal ends the process at once.

    Args:
        service: How.
        engine: The loaded model.
        say: Gets a line when the doors are open.

    Raises:
        JobError: A port is taken.
        CorpuscoreError: The model fails for good.
        Expired: Something that was taken was not answered in the time for it.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    told = _signals()
    info = engine.info
    said = {"name": service.name, "fingerprint": info.fingerprint, "precision": info.precision, "backend": info.backend}
    counters = Counters(said)
    admission = Admission(service.max_queue)
    batcher = Batcher(engine, counters, admission, max_wait_seconds=service.max_wait_seconds)
    try:
        card = ModelCard.of(
            service.name, info, max_tokens=service.max_tokens, long_documents=service.long_documents,
            max_texts=admission.most_texts, max_bytes=service.max_message_bytes,
        )  # fmt: skip
        front = GrpcFront(batcher, card, counters, token=service.token, most_bytes=service.max_message_bytes)
        port = bind(front.server, service.host, service.port, service.tls)
        most = service.max_message_bytes
        limits = HttpLimits(body_bytes=most, all_body_bytes=_BODIES * most, documents=admission.most_texts)
        web = HttpFront(
            batcher, card, counters, token=service.token, metrics_need_token=service.token_for_metrics, limits=limits
        )
        with listening(service.host, service.http_port) as listener:
            http = http_server(
                web.application, tls=None if service.tls is None else service.tls.context(), drain_seconds=_STOP_SECONDS
            )
            serving = asyncio.create_task(http.serve(sockets=[listener]))
            await front.start()
            say(_line(service, engine, port, listener))
            failure = await _until_told(told, batcher, serving)
            await _end(service, batcher, front, http, serving)
            if failure is not None:
                raise failure
    finally:
        batcher.close()


def _signals() -> asyncio.Event:
    """Set with the first signal to end; the second one ends the process."""
    told = asyncio.Event()

    def on_signal(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return told


async def _until_told(told: asyncio.Event, batcher: Batcher, serving: asyncio.Task[None]) -> CorpuscoreError | None:
    """Wait for a signal, or for the error with which the model fails for good."""
    waiting = asyncio.create_task(told.wait())
    failing = asyncio.create_task(batcher.failure())
    await asyncio.wait({waiting, failing, serving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, failing):
        task.cancel()
    if serving.done():
        serving.result()
    return failing.result() if failing.done() and not failing.cancelled() else None


async def _end(
    service: Service, batcher: Batcher, front: GrpcFront, http: HttpServer, serving: asyncio.Task[None]
) -> None:
    """Take no more, answer what was taken, close both doors.

    Raises:
        Expired: There was not time for all of it.
    """
    await front.not_ready()
    try:
        async with asyncio.timeout(service.drain_seconds):
            await batcher.drain()
        late = 0
    except TimeoutError:
        late = batcher.outstanding
        batcher.close()
    http.should_exit = True
    await asyncio.gather(front.stop(), serving)
    if late:
        raise Expired(
            f"{late} requests were not answered within {service.drain_seconds:g} s",
            rule="What was taken is answered before the service ends",
            next_step="give --drain-seconds more, and the one who ends it more than that",
        )


def _line(service: Service, engine: Engine, port: int, listener: socket.socket) -> str:
    """What is served, and where."""
    host = f"[{service.host.strip('[]')}]" if ":" in service.host else service.host
    secure = "s" if service.tls else ""
    info = engine.info
    return (
        f"Serving {service.name} ({info.backend}, {info.precision}, {len(info.labels)} labels, {info.fingerprint}) at "
        f"grpc{secure}://{host}:{port}/{service.name}; try it at http{secure}://{host}:{listener.getsockname()[1]}/"
    )
