"""`corpuscore serve` as users run it: what it says, signals, certificates, and arguments that cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from corpuscore.cli import main
from corpuscore.errors import JobError, ModelError
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelMetadataRequest, ServerReadyRequest
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of
from corpuscore.scoring import load_scorer
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Tokens
from corpuscore.service.counters import Counters
from corpuscore.service.doors import Tls, bind, check_open, tls_from, token_from
from corpuscore.service.grpcfront import GrpcFront
from corpuscore.service.running import Service, name_of, serve
from tests.scoring.letters import Letters
from tests.servers.tls import Authority, make_authority
from tests.service.doors import CARD
from tests.service.held import batcher, run, until
from tests.service.processes import Serving, serving


@pytest.fixture(scope="module")
def service() -> Iterator[Serving]:
    """The bundled model, served without anything else."""
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs for both sides."""
    return make_authority(tmp_path_factory.mktemp("tls") / "a")


def stub_of(channel: grpc.Channel) -> Any:
    """The protocol's methods over a channel."""
    return GRPCInferenceServiceStub(channel)


def test_a_text_has_the_score_of_the_batch_path(service: Serving) -> None:
    """By gRPC and by HTTP, bit for bit, with labels from the metadata; and the page is there."""
    texts = ["What a morning!", "Nobody came, and the rain went on.", ""]
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = stub_of(channel)
        card = ModelCard.of_response(stub.ModelMetadata(ModelMetadataRequest(name=service.name)))
        answer = scores_of(stub.ModelInfer(request_of(card.name, texts), timeout=60), 3, len(card.labels))
    scorer = load_scorer("bundled", device="cpu")
    assert (card.name, card.labels, card.fingerprint) == ("bundled", scorer.info.labels, scorer.info.fingerprint)
    np.testing.assert_array_equal(answer.probabilities_DL, scorer.score(texts))
    here = f"http://127.0.0.1:{service.http_port}"
    tensor = {"name": "text", "datatype": "BYTES", "shape": [3], "data": texts}
    outputs = httpx.post(f"{here}/v2/models/bundled/infer", json={"inputs": [tensor]}, timeout=60).json()["outputs"]
    np.testing.assert_array_equal(np.array(outputs[0]["data"], np.float32), scorer.score(texts).ravel())
    page = httpx.get(f"{here}/", timeout=60)
    assert (page.status_code, "bundled" in page.text) == (200, True)


def test_an_address_that_is_taken(service: Serving) -> None:
    """A second service at either port is refused with one message, before it loads a model."""
    for ports in (("--port", str(service.port), "--http-port", "0"), ("--http-port", str(service.port), "--port", "0")):
        done = CliRunner().invoke(main, ["serve", *ports])
        assert done.exit_code == 2
        assert f"127.0.0.1:{service.port} cannot be listened at: Address already in use" in done.output
        assert done.output.count("error:") == 1


def test_a_drain_with_work_under_way() -> None:
    """After SIGTERM a large request is answered whole, new ones are refused, and the process ends with 0."""
    with serving("--token-budget", "512") as made, grpc.insecure_channel(f"127.0.0.1:{made.port}") as channel:
        stub = stub_of(channel)
        texts = [f"Number {number} came home late, and nobody had waited for it." for number in range(6_000)]
        large = stub.ModelInfer.future(request_of("bundled", texts))
        _wait_for_a_pass(made)
        made.process.send_signal(signal.SIGTERM)
        while stub.ServerReady(ServerReadyRequest()).ready:
            pass
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request_of("bundled", ["late"]), timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert np.isfinite(scores_of(large.result(timeout=120), 6_000, 28).probabilities_DL).all()
        assert made.process.wait(timeout=60) == 0
    assert len(made.lines) == 1


def _wait_for_a_pass(made: Serving) -> None:
    """Until the model has begun with what was sent."""
    while "corpuscore_pass_seconds_count 0.0" in httpx.get(f"http://127.0.0.1:{made.http_port}/metrics").text:
        pass


def test_a_second_signal_ends_it_at_once() -> None:
    """Whatever is under way."""
    with serving("--token-budget", "512") as made, grpc.insecure_channel(f"127.0.0.1:{made.port}") as channel:
        stub = stub_of(channel)
        large = stub.ModelInfer.future(request_of("bundled", [f"Number {number} " * 40 for number in range(9_000)]))
        _wait_for_a_pass(made)
        made.process.send_signal(signal.SIGINT)
        while stub.ServerReady(ServerReadyRequest()).ready:
            pass
        made.process.send_signal(signal.SIGINT)
        assert made.process.wait(timeout=30) == 128 + signal.SIGINT
        assert large.exception(timeout=60).code() == grpc.StatusCode.UNAVAILABLE


def test_certificates_and_a_token(authority: Authority) -> None:
    """With both, only clients with a certificate of the authority and the token are answered."""
    pem, ca = authority.pem.read_bytes(), authority.ca.read_bytes()
    options = [("grpc.ssl_target_name_override", "dask")]
    arguments = [
        "--tls-cert",
        str(authority.pem),
        "--tls-key",
        str(authority.pem),
        "--tls-client-ca",
        str(authority.ca),
    ]
    with serving(*arguments, token="secret") as made:
        address = f"127.0.0.1:{made.port}"
        request, shown = request_of("bundled", ["a"]), (("authorization", "Bearer secret"),)
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, pem, pem), options) as channel:
            scores_of(stub_of(channel).ModelInfer(request, metadata=shown, timeout=60), 1, 28)
            with pytest.raises(grpc.RpcError) as refused:
                stub_of(channel).ModelInfer(request, timeout=60)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        for credentials in (grpc.ssl_channel_credentials(ca), None):
            channel = (
                grpc.insecure_channel(address) if credentials is None else
                grpc.secure_channel(address, credentials, options)
            )  # fmt: skip
            with channel, pytest.raises(grpc.RpcError) as refused:
                stub_of(channel).ModelInfer(request, metadata=shown, timeout=20)
            assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        known, unknown = (ssl.create_default_context(cafile=authority.ca) for _ in range(2))
        for context in (known, unknown):
            context.check_hostname = False  # the certificate is for another name
        known.load_cert_chain(authority.pem)
        place, bearer = f"https://127.0.0.1:{made.http_port}/v2", {"Authorization": "Bearer secret"}
        assert httpx.get(place, verify=known, headers=bearer, timeout=60).json()["name"] == "corpuscore"
        assert httpx.get(place, verify=known, timeout=60).status_code == 401
        for url, context in ((place, unknown), (place.replace("https", "http"), known)):
            with pytest.raises(httpx.TransportError):
                httpx.get(url, verify=context, headers=bearer, timeout=60)


def test_certificates_alone(authority: Authority) -> None:
    """Without an authority for clients, whoever trusts the service's own may come."""

    async def go() -> None:
        async with batcher(Letters()) as made:
            front = GrpcFront(made, CARD, Counters({"name": "letters"}))
            port = bind(front.server, "127.0.0.1", 0, Tls(authority.pem, authority.pem))
            await front.start()
            credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
            options = [("grpc.ssl_target_name_override", "dask")]
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                scores_of(await stub_of(channel).ModelInfer(request_of("letters", ["a"]), timeout=60), 1, 2)
            await front.stop()

    run(go())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "::"], "--host :: without a token"),
        (["--host", "192.0.2.1", "--no-token"], "Cannot assign requested address"),
        (["--host", "no.such.host.invalid", "--no-token"], "cannot be listened at"),
        (["--name", "a/b"], "A model's name is part of addresses"),
        (["--port", "9", "--http-port", "9"], "--port and --http-port are both 9"),
        (["--tls-key", "k.pem"], "--tls-key by itself"),
        (["--tls-client-ca", "c.pem"], "--tls-client-ca by itself"),
        (["--tls-cert", "nowhere.pem", "--tls-key", "nowhere.pem"], "nowhere.pem cannot be used"),
        (["--tls-cert", __file__, "--tls-key", __file__], "cannot be used"),
        (["--token-file", "nowhere"], "--token-file nowhere cannot be read"),
        (["--token-file", os.devnull], "is empty"),
        (["--token-for-metrics"], "--token-for-metrics without a token"),
        (["--max-tokens", "1"], "special tokens"),
    ],
)
def test_arguments_that_cannot_be(arguments: list[str], words: str) -> None:
    """Each ends in one message and status 2."""
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--http-port", "0", *arguments])
    assert done.exit_code == 2, done.output
    assert words in done.output


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    """The file goes before the environment; space around it is no part of it; it is ASCII."""
    file = tmp_path / "token"
    file.write_text(" of-the-file\n")
    environment = {"CORPUSCORE_SERVICE_TOKEN": "of-the-environment"}
    assert token_from(str(file), environment) == "of-the-file"
    assert token_from(None, environment) == "of-the-environment"
    assert token_from(None, {}) is None
    for wrong in ("", "two words", "größe", "a\nb"):
        with pytest.raises(JobError, match="ASCII without spaces"):
            token_from(None, {"CORPUSCORE_SERVICE_TOKEN": wrong})


def test_who_may_come_in() -> None:
    """This machine's own need no token; a network does, unless told otherwise."""
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"):
        check_open(host, None, no_token=False)
    for host in ("::", "10.0.0.1", "example.org"):
        check_open(host, "secret", no_token=False)
        check_open(host, None, no_token=True)
        with pytest.raises(JobError, match="--no-token"):
            check_open(host, None, no_token=False)
    with pytest.raises(JobError, match="leave one of them out"):
        check_open("::1", "secret", no_token=True)
    assert tls_from(None, None, None) is None


class Dead(Letters):
    """A model that fails for every text."""

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Fail."""
        raise ValueError("a broken weight")


def test_a_model_that_fails_for_good_ends_the_service() -> None:
    """Whoever waits gets the error, and so does whoever runs it."""

    async def go() -> None:
        engine = Engine(Dead(), max_tokens=32, long_documents="truncate")
        lines: list[str] = []
        service = Service("letters", port=0, http_port=0, max_tokens=32)
        running = asyncio.create_task(serve(service, engine, lines.append))
        await until(lambda: bool(lines))
        address = lines[0].partition("grpc://")[2].partition("/")[0]
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub_of(channel).ModelInfer(request_of("letters", [f"{number}" for number in range(9)]))
        assert refused.value.code() == grpc.StatusCode.INTERNAL
        assert "fails for every text" in refused.value.details()
        with pytest.raises(ModelError, match="a broken weight"):
            await running

    run(go())


def test_names_of_models(tmp_path: Path) -> None:
    """A folder's own name, or the hub's without what an address cannot hold."""
    folder = tmp_path / "my model, v2"
    folder.mkdir()
    assert name_of(f"{folder}/") == "my-model-v2"
    assert name_of("owner/name@v1") == "owner-name"
    assert name_of("bundled") == "bundled"
    assert name_of("/") == "model"


def test_without_the_extra(tmp_path: Path) -> None:
    """Where grpcio is not installed, the package to install is named; the other commands need none of it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "corpuscore", "serve"], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'corpuscore[service]'" in done.stderr


def test_an_address_of_the_sixth_version() -> None:
    """Brackets or none."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6")

    async def go() -> None:
        async with batcher(Letters()) as made:
            for host in ("::1", "[::1]"):
                front = GrpcFront(made, CARD, Counters({"name": "letters"}))
                port = bind(front.server, host, 0, None)
                await front.start()
                async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
                    await asyncio.wait_for(channel.channel_ready(), 60)
                await front.stop()

    run(go())
