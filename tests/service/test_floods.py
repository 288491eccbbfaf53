"""More than a service can take, and what none should: refused in clear words, while what was taken is answered."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest

from corpuscore.inference import open_inference_pb2 as messages
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of
from corpuscore.scoring import load_scorer
from tests.scoring.checkpoints import LABELS, MAX_POSITIONS, write_checkpoint
from tests.service.processes import Serving, serving

REQUESTS, CONNECTIONS, QUEUE = 10_000, 20, 1_000
#: Texts of the flood: each is sent many times, in a body of some 10 kB.
TEXTS = [f"the storm of number {number} and {'rain again ' * 900}" for number in range(50)]
INFER = "/inference.GRPCInferenceService/ModelInfer"
MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random BERT."""
    return str(write_checkpoint(tmp_path_factory.mktemp("floods") / "tiny"))


@pytest.fixture(scope="module")
def service(model: str) -> Iterator[Serving]:
    """It, served by passes that wait for five seconds for more: so long nothing leaves the queue."""
    how = ("--max-tokens", str(MAX_POSITIONS), "--max-wait-ms", "5000", "--token-budget", "1000000")
    with serving("--model", model, "--name", "tiny", "--max-queue", str(QUEUE), *how) as made:
        yield made


@contextmanager
def _peak(process: int) -> Iterator[Callable[[], int]]:
    """How many bytes of memory a process has taken in this block beyond what it had, at the most."""
    seen, over = psutil.Process(process), threading.Event()
    before = peak = seen.memory_info().rss

    def look() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, seen.memory_info().rss)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield lambda: peak - before
    finally:
        over.set()
        watching.join()


async def _flood(port: int) -> list[Any]:
    """All requests at once: the response of each, or the error."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CONNECTIONS)]
    bodies = [request_of("tiny", [text]).SerializeToString() for text in TEXTS]
    calls = [channel.unary_unary(INFER, None, messages.ModelInferResponse.FromString) for channel in channels]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        sent = (calls[at % CONNECTIONS](bodies[at % len(TEXTS)], timeout=120) for at in range(REQUESTS))
        return await asyncio.gather(*sent, return_exceptions=True)
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


def test_ten_thousand_at_once(service: Serving, model: str) -> None:
    """A queue of a thousand takes a thousand; the others are told when to come again, and memory stays bounded."""
    expected = load_scorer(model, device="cpu", max_tokens=MAX_POSITIONS).score(TEXTS)
    with _peak(service.process.pid) as peak:
        answers = asyncio.run(_flood(service.port))
    taken = [at for at, answer in enumerate(answers) if not isinstance(answer, BaseException)]
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(taken) >= QUEUE
    assert len(refused) >= QUEUE
    for at in taken:
        scores = scores_of(answers[at], 1, len(LABELS)).probabilities_DL
        np.testing.assert_array_equal(scores[0], expected[at % len(TEXTS)])
    for error in refused:
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert f"This service lets {QUEUE} requests" in str(error.details())
        hint = int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
        assert 50 <= hint <= 30_000
    assert peak() < 384 * MIB
    assert service.process.poll() is None


@pytest.fixture(scope="module")
def quick(model: str) -> Iterator[Serving]:
    """The same model, whose passes wait for nobody."""
    with serving("--model", model, "--name", "tiny", "--max-tokens", str(MAX_POSITIONS), "--max-wait-ms", "0") as made:
        yield made


def _invalid() -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"rain", b"\xff\xfe"])
    return request


HOSTILE: dict[str, tuple[Callable[[], messages.ModelInferRequest], str, tuple[str, ...]]] = {
    "100 MB": (lambda: request_of("tiny", ["x" * 100_000_000]), "RESOURCE_EXHAUSTED", ("message larger than max",)),
    "a million texts": (
        lambda: request_of("tiny", ["x"] * 1_000_000),
        "INVALID_ARGUMENT",
        ("1000000 texts in one request", "at most 10000", "several requests"),
    ),
    "not UTF-8": (_invalid, "INVALID_ARGUMENT", ("Text 1 is not UTF-8: byte 0xff at 0",)),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_what_no_service_should_take(quick: Serving, kind: str, packed: bool) -> None:
    """One clear message without a hint to try again; little memory, even for what gzip blows up; and it goes on."""
    make, status, words = HOSTILE[kind]
    compression = grpc.Compression.Gzip if packed else None
    with grpc.insecure_channel(f"127.0.0.1:{quick.port}") as channel, _peak(quick.process.pid) as peak:
        stub: Any = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(make(), timeout=60, compression=compression)
        assert refused.value.code().name == status, refused.value
        for word in words:
            assert word in refused.value.details()
        assert "grpc-retry-pushback-ms" not in dict(refused.value.trailing_metadata())
        scores_of(stub.ModelInfer(request_of("tiny", ["rain again"]), timeout=60), 1, len(LABELS))
    assert peak() < 64 * MIB


def _json(text: str, count: int) -> bytes:
    texts = ",".join([f'"{text}"'] * count)
    tensor = f'{{"name":"text","datatype":"BYTES","shape":[{count}],"data":[{texts}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda: _json("x" * 100_000_000, 1), 413, "16777216"),
        (lambda: _json("x", 1_000_000), 413, "1000000 texts"),
        (lambda: _json("?", 1).replace(b"?", b"\xff"), 400, "UTF-8"),
    ],
    ids=["100 MB", "a million texts", "not UTF-8"],
)
def test_the_same_over_http(quick: Serving, make: Callable[[], bytes], status: int, words: str) -> None:
    """One clear message; and it goes on."""
    with httpx.Client(base_url=f"http://127.0.0.1:{quick.http_port}", timeout=60) as client:
        with _peak(quick.process.pid) as peak:
            answer = client.post("/v2/models/tiny/infer", content=make())
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text[:200]
        assert words in answer.json()["error"]
        assert peak() < 128 * MIB
        packed = client.post(
            "/v2/models/tiny/infer",
            content=gzip.compress(_json("x" * 100_000_000, 1)),
            headers={"content-encoding": "gzip"},
        )
        assert packed.status_code in (400, 413, 415), packed.text[:200]
        assert client.post("/v2/models/tiny/infer", content=_json("rain", 1)).status_code == 200


def test_a_call_without_a_request(quick: Serving) -> None:
    """It is told so."""
    with grpc.insecure_channel(f"127.0.0.1:{quick.port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.stream_unary(INFER)(iter([]), timeout=60)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "A call without a request" in refused.value.details()


def test_nothing_was_said(service: Serving, quick: Serving) -> None:
    """What clients do wrong is told to them alone."""
    assert (len(service.lines), len(quick.lines)) == (1, 1), service.lines + quick.lines
