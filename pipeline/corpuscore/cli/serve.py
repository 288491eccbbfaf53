"""`corpuscore serve`: a model behind gRPC and HTTP, in the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import logging
import os

import click

from corpuscore.errors import JobError
from corpuscore.records import LongDocuments

_log = logging.getLogger(__name__)
#: What `pip install 'corpuscore[service]'` brings.
_EXTRA = ("google", "grpc", "grpc_health", "starlette", "uvicorn")


@click.command()
@click.option("--model", default="bundled", show_default=True, help="bundled, a folder or a hub name.")
@click.option("--backend", default="auto", show_default=True, help="auto, or the name of a backend.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16, fp16, int8 or fp8.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Window of the model.")
@click.option(
    "--long-documents", type=click.Choice(["truncate", "mean", "max"]), default="truncate", show_default=True,
    help="Beyond --max-tokens: cut, or score windows and take their mean or maximum.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the model.")
@click.option("--token-budget", type=click.IntRange(min=1), help="Tokens of one pass through the model.")
@click.option("--name", help="Of the model at the service. [default: from --model]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="Of gRPC; 0: a free one.")
@click.option(
    "--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True,
    help="Of HTTP: the same protocol in JSON, /metrics, /livez, /readyz and a page; 0: a free one.",
)  # fmt: skip
@click.option(
    "--max-wait-ms", type=click.FloatRange(min=0), default=5, show_default=True,
    help="That a pass with room waits for more requests, while the model has nothing to do.",
)  # fmt: skip
@click.option(
    "--max-queue", type=click.IntRange(min=1), default=1000, show_default=True,
    help="Requests that may wait; more are refused at once.",
)  # fmt: skip
@click.option(
    "--max-message-mib", type=click.IntRange(1, 2047), default=16, show_default=True, help="Size of one request."
)
@click.option("--tls-cert", metavar="PEM", help="Certificate of the service, for both ports.")
@click.option("--tls-key", metavar="PEM", help="Its key.")
@click.option("--tls-client-ca", metavar="PEM", help="Authority whose certificates clients must show.")
@click.option(
    "--token-file", metavar="FILE",
    help="Holds the token that clients send as authorization: Bearer TOKEN; so may CORPUSCORE_SERVICE_TOKEN.",
)  # fmt: skip
@click.option("--token-for-metrics", is_flag=True, help="Ask for the token at /metrics as well.")
@click.option("--no-token", is_flag=True, help="Listen at a network's address without a token.")
@click.option(
    "--drain-seconds", type=click.FloatRange(min=0), default=30, show_default=True,
    help="For what was taken, when the service is told to end.",
)  # fmt: skip
def serve(
    model: str,
    backend: str,
    device: str,
    precision: str,
    max_tokens: int,
    long_documents: LongDocuments,
    threads: int | None,
    token_budget: int | None,
    name: str | None,
    host: str,
    port: int,
    http_port: int,
    max_wait_ms: float,
    max_queue: int,
    max_message_mib: int,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    token_file: str | None,
    token_for_metrics: bool,
    no_token: bool,
    drain_seconds: float,
) -> None:
    """Serve a model: texts in, probabilities out, by gRPC and HTTP (Open Inference Protocol v2).

    Scores are those of `corpuscore run`. SIGTERM and Ctrl-C finish what was taken; a second one ends it at once.
    """
    try:
        from corpuscore.service import doors, running
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise JobError(
            f"Package {error.name} is not installed",
            rule="A service needs what the extra `service` brings",
            next_step="pip install 'corpuscore[service]'",
        ) from None
    from corpuscore.scoring import load_scorer
    from corpuscore.scoring.engine import Engine

    token = doors.token_from(token_file, os.environ)
    doors.check_open(host, token, no_token=no_token)
    service = running.Service(
        name=running.name_of(model) if name is None else name,
        host=host,
        port=port,
        http_port=http_port,
        max_tokens=max_tokens,
        long_documents=long_documents,
        max_wait_seconds=max_wait_ms / 1000,
        max_queue=max_queue,
        max_message_bytes=max_message_mib * 2**20,
        drain_seconds=drain_seconds,
        tls=doors.tls_from(tls_cert, tls_key, tls_client_ca),
        token=token,
        token_for_metrics=token_for_metrics,
    )
    service.check()
    if token is not None and service.tls is None and not doors.is_loopback(host):
        _log.warning("The token travels in plain text. Next: give --tls-cert and --tls-key, or let a proxy speak TLS.")
    engine = load_scorer(
        model,
        backend=backend,
        device=device,
        precision=precision,
        max_tokens=max_tokens,
        long_documents=long_documents,
        threads=threads,
        token_budget=token_budget,
    )
    if not isinstance(engine, Engine):
        raise JobError(
            f"--model {model}",
            rule="A service serves a model of its own",
            next_step="give bundled, a folder or a hub name",
        )
    asyncio.run(running.serve(service, engine, click.echo))
