"""A real S3 server in a process of its own, once a session, on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and how a process reaches it.

    Attributes:
        endpoint: `http://127.0.0.1:port`.
        environment: AWS_* variables for a client; nothing of the machine's own configuration is read.
    """

    endpoint: str
    environment: dict[str, str]

    def make_bucket(self) -> str:
        """The URI of a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")  # noqa: S310 (loopback)
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
        return f"s3://{name}"


def environment_for(endpoint: str) -> dict[str, str]:
    """AWS_* variables that lead a client to an endpoint and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_s3_server(log: Path, **variables: str) -> Iterator[S3Server]:
    """An S3 server that is ready, and whose whole process group ends with the block.

    Args:
        log: File for its output.
        variables: Further environment variables of the server.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **variables}
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_ready(endpoint, process, log)
        yield S3Server(endpoint, environment_for(endpoint))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with status {process.returncode}: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1).close()  # noqa: S310 (loopback)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the S3 server was not ready after {_START_SECONDS} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for the session; its variables are set by `s3`, or given to a process by hand.

    Its listings have pages of 50 instead of 1,000, so that every test that lists turns pages.
    """
    with running_s3_server(tmp_path_factory.mktemp("s3") / "server.log", MOTO_S3_DEFAULT_MAX_KEYS="50") as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new, empty bucket; this process's AWS environment leads to it for one test."""
    point_at(s3_server.endpoint, monkeypatch)
    return s3_server.make_bucket()


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process's AWS environment lead to an endpoint, for one test."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in environment_for(endpoint).items():
        monkeypatch.setenv(variable, value)


@contextmanager
def answering(respond: Callable[[BaseHTTPRequestHandler], tuple[int, str]]) -> Iterator[str]:
    """The endpoint of a server whose every answer a function makes: for what the real one never says.

    Args:
        respond: Request to (status, S3 error code); an empty code is an empty body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients wait for "100 Continue" before they send a body

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = respond(self)
            body = f"<Error><Code>{code}</Code><Message>said by a test</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

        def log_message(self, *values: object) -> None:
            """Say nothing."""

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The endpoint of a server on a free loopback port, which ends with the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
