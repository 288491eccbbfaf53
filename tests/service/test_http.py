"""The HTTP front, over real sockets: what it answers, and what it does not let anybody do to it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.scoring.scorer import Scores, Tokens
from corpuscore.service import httpbody, httpserver
from corpuscore.service.httpfront import HttpLimits
from corpuscore.service.httptensors import Asked, write_response
from tests.scoring.letters import letter_scores
from tests.service.held import Held
from tests.service.web import FINGERPRINT, INFER, Served, served, wait_until

#: Bytes of all bodies that the service holds.
ROOM = 150_000
TEXTS = ["aeix", "hello world", "", "\u00fcber \U0001f600 \u65e5\u672c", "x" * 100]


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    """A service whose bodies are small, come soon, and need no token."""
    limits = HttpLimits(body_bytes=100_000, all_body_bytes=ROOM, body_seconds=0.5, documents=50)
    with served(limits=limits) as running:
        yield running


@pytest.fixture
def client(service: Served) -> httpx.Client:
    """A client of it."""
    return service.client


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused bodies are read on for a moment only."""
    monkeypatch.setattr(httpbody, "LINGER_SECONDS", 0.2)


def asking(*texts: str, **more: Any) -> dict[str, Any]:
    """A request for some texts."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return {"inputs": [tensor], **more}


def outputs_of(response: httpx.Response) -> dict[str, Any]:
    """Its outputs by name."""
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def expected(texts: list[str]) -> np.ndarray:
    """What the model says of them."""
    return np.array([letter_scores(text[:30]) for text in texts], np.float32).reshape(-1, 2)


def packed(texts: list[str]) -> bytes:
    """Texts as the binary data of a tensor."""
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def in_binary(texts: list[str], size: int | None = None, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request with its texts in binary, and its headers."""
    data = packed(texts)
    parameters = {"binary_data_size": len(data) if size is None else size}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "parameters": parameters}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


def test_scores_are_those_of_the_batch_path(client: httpx.Client, service: Served) -> None:
    """Bit for bit, with the tokens used and whether a text was cut; the labels stand beside them."""
    response = client.post(INFER, json=asking(*TEXTS, id="a name"))
    outputs = outputs_of(response)
    probabilities = outputs["probabilities"]
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [5, 2])
    seen = np.array(probabilities["data"], np.float32).reshape(5, 2)
    np.testing.assert_array_equal(seen, service.engine.score(TEXTS))
    assert json.loads(probabilities["parameters"]["labels"]) == ["vowels", "length"]
    assert outputs["tokens"]["data"] == [min(len(text), 30) + 2 for text in TEXTS]
    assert outputs["truncated"]["data"] == [len(text) > 30 for text in TEXTS]
    assert {key: response.json()[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "letters", "model_version": FINGERPRINT, "id": "a name",
    }  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.text(max_size=40), max_size=8), st.booleans(), st.booleans())
def test_every_text_comes_through_in_json_and_in_binary(
    service: Served, texts: list[str], binary_in: bool, binary_out: bool
) -> None:
    """Whatever the letters and the form, the scores are the same bits."""
    parameters = {"binary_data_output": binary_out}
    if binary_in:
        body, headers = in_binary(texts, parameters=parameters)
    else:
        body, headers = json.dumps(asking(*texts, parameters=parameters)).encode(), {}
    response = service.client.post(INFER, content=body, headers=headers)
    assert response.status_code == 200, response.text
    if binary_out:
        length = int(response.headers["inference-header-content-length"])
        head, rest = json.loads(response.content[:length]), response.content[length:]
        sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
        assert sizes == [8 * len(texts), 4 * len(texts), len(texts)]
        seen = np.frombuffer(rest[: sizes[0]], "<f4").reshape(-1, 2)
        tokens = np.frombuffer(rest[sizes[0] : sizes[0] + sizes[1]], "<i4").tolist()
    else:
        outputs = outputs_of(response)
        seen = np.array(outputs["probabilities"]["data"], np.float32).reshape(-1, 2)
        tokens = outputs["tokens"]["data"]
    np.testing.assert_array_equal(seen, expected(texts))
    assert tokens == [min(len(text), 30) + 2 for text in texts]


def test_json_gives_back_every_float32() -> None:
    """Floats of all exponents, the smallest and those beside 1, keep all their bits on the way through JSON."""
    bits = np.random.default_rng(7).integers(0, 0x3F800001, 200_000, dtype=np.uint32)
    values = np.concatenate([bits, [0, 1, 0x3F7FFFFF, 0x3F800000, 0x7FFFFF]]).astype(np.uint32).view(np.float32)
    values = values[: len(values) // 2 * 2].reshape(-1, 2)
    counts = np.zeros(len(values), np.int32)
    asked = Asked([], None, {"probabilities": False}, None)
    written, _ = write_response({}, asked, ("a", "b"), Scores(values, counts, counts.astype(np.bool_)))
    read = np.array(json.loads(written)["outputs"][0]["data"], np.float32).reshape(-1, 2)
    np.testing.assert_array_equal(read.view(np.uint32), values.view(np.uint32))


def test_data_may_be_as_nested_as_the_shape(client: httpx.Client) -> None:
    """[documents, 1] takes nested and flat data; the scores have a row a document all the same."""
    for data in ([["aeix"], ["soup"]], ["aeix", "soup"]):
        tensor = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": data}
        outputs = outputs_of(client.post(INFER, json={"inputs": [tensor]}))
        assert outputs["probabilities"]["shape"] == [2, 2]
        seen = np.array(outputs["probabilities"]["data"], np.float32).reshape(2, 2)
        np.testing.assert_array_equal(seen, expected(["aeix", "soup"]))


def test_only_the_outputs_that_are_asked_for(client: httpx.Client) -> None:
    """In the order of the request, each in its own form."""
    wanted = [{"name": "tokens"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    response = client.post(INFER, json=asking("aeix", outputs=wanted))
    length = int(response.headers["inference-header-content-length"])
    head = json.loads(response.content[:length])
    assert [output["name"] for output in head["outputs"]] == ["tokens", "probabilities"]
    assert head["outputs"][0]["data"] == [6]
    np.testing.assert_array_equal(np.frombuffer(response.content[length:], "<f4"), expected(["aeix"])[0])


def test_the_server_and_its_model_tell_of_themselves(client: httpx.Client) -> None:
    """Metadata and health, with and without a version, in the protocol's words."""
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "schedule_policy"]
    for path in ("/v2/models/letters", f"/v2/models/letters/versions/{FINGERPRINT}"):
        card = client.get(path).json()
        assert (card["name"], card["versions"]) == ("letters", [FINGERPRINT])
        assert card["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]} in card["outputs"]
        assert json.loads(card["properties"]["labels"]) == ["vowels", "length"]
        assert client.get(f"{path}/ready").json() == {"name": "letters", "ready": True}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert (client.get("/livez").text, client.get("/readyz").text) == ("ok\n", "ok\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/other/infer", 404),
        ("POST", f"/v2/models/letters/versions/{'1' * 16}/infer", 404),
        ("GET", "/v2/models/letters/versions/1/ready", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/nothing", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ],
)
def test_what_is_not_there_is_said_so(client: httpx.Client, method: str, path: str, status: int) -> None:
    """Names, versions and methods that are not, as errors of the protocol."""
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error"}


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "The request is []"),
    "null": (None, "The request is missing"),
    "no inputs": ({}, "inputs is missing"),
    "two inputs": ({"inputs": asking("a")["inputs"] * 2}, "inputs has 2 tensors"),
    "no input": ({"inputs": []}, "inputs has 0 tensors"),
    "an input of text": ({"inputs": ["text"]}, "inputs[0] is 'text'"),
    "another name": ({"inputs": [{**asking("a")["inputs"][0], "name": "TEXT"}]}, "inputs[0].name is 'TEXT'"),
    "a long name": ({"inputs": [{**asking("a")["inputs"][0], "name": "n" * 9_000}]}, "nnn...'"),
    "another type": ({"inputs": [{**asking("a")["inputs"][0], "datatype": "FP32"}]}, "inputs[0].datatype is 'FP32'"),
    "no shape": ({"inputs": [{"name": "text", "datatype": "BYTES", "data": []}]}, "inputs[0].shape is missing"),
    "shape of text": ({"inputs": [{**asking("a")["inputs"][0], "shape": ["1"]}]}, "inputs[0].shape is a list of 1"),
    "shape of 1.0": ({"inputs": [{**asking("a")["inputs"][0], "shape": [1.0]}]}, "inputs[0].shape is [1.0]"),
    "shape of true": ({"inputs": [{**asking("a")["inputs"][0], "shape": [True]}]}, "inputs[0].shape is [True]"),
    "shape below 0": ({"inputs": [{**asking("a")["inputs"][0], "shape": [-1]}]}, "inputs[0].shape is [-1]"),
    "wide shape": ({"inputs": [{**asking("a")["inputs"][0], "shape": [1, 2]}]}, "inputs[0].shape is [1, 2]"),
    "shape of 3": ({"inputs": [{**asking("a")["inputs"][0], "shape": [1, 1, 1]}]}, "inputs[0].shape is [1, 1, 1]"),
    "too few texts": ({"inputs": [{**asking("a")["inputs"][0], "shape": [2]}]}, "1 elements in a tensor of shape [2]"),
    "a number": (asking("a", 1), "inputs[0].data[1] is 1"),  # type: ignore[arg-type]
    "a null": (asking("a", None), "inputs[0].data[1] is missing"),  # type: ignore[arg-type]
    "nested": (asking("a", ["b"]), "inputs[0].data[1] is a list of 1"),  # type: ignore[arg-type]
    "too many texts": (asking(*["a"] * 51), "51 texts"),
    "id of 1": (asking("a", id=1), "id is 1"),
    "other output": (asking("a", outputs=[{"name": "logits"}]), "No output 'logits'"),
    "output twice": (asking("a", outputs=[{"name": "tokens"}] * 2), "outputs[1].name is 'tokens'"),
    "classes": (asking("a", outputs=[{"name": "tokens", "parameters": {"classification": 3}}]), "a classification"),
    "binary of text": (asking("a", outputs=[{"name": "tokens", "parameters": {"binary_data": "yes"}}]), "'yes'"),
    "parameters of 1": (asking("a", parameters=1), "parameters of The request is 1"),
    "timeout of text": (asking("a", parameters={"timeout": "1s"}), "The parameter timeout is '1s'"),
    "timeout below 0": (asking("a", parameters={"timeout": -1}), "The parameter timeout is -1"),
}


@pytest.mark.parametrize(("request_body", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused_in_words(client: httpx.Client, request_body: Any, words: str) -> None:
    """400, with the value that is wrong, in a line of bounded length."""
    response = client.post(INFER, content=json.dumps(request_body))
    assert response.status_code == (413 if words == "51 texts" else 400)
    assert words in response.json()["error"]
    assert len(response.content) < 600


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"nonsense", b"\xff\xfe", b'{"inputs": "\xc3("}', b"[" * 90_000, b'{"a":' * 15_000),
        *(b'{"inputs": NaN}', b'{"inputs": [Infinity]}', b"\xef\xbb\xbf{}", b'{"inputs": "\\ud800"}'),
    ],
    ids=range(11),
)
def test_what_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    """However deep, and whatever else some parsers take."""
    response = client.post(INFER, content=body)
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (b"{}", "3", "is 3 and the body has 2 bytes"),
        (b"{}", "-1", "is '-1'"),
        (b"{}", "two", "is 'two'"),
        (b"{}", "9" * 30, "is '999"),
        (json.dumps(asking("a")).encode() + b"..", None, "not JSON"),
        (json.dumps(asking("a")).encode() + b"..", "-2", "2 bytes follow the JSON object"),
        *((in_binary(["a", "bc"], size)[0], "head", "binary_data_size is") for size in (0, 10, 12, -1)),
        (in_binary(["a", "bc"])[0].replace(b"[2]", b"[3]"), "head", "2 elements in a tensor of shape [3]"),
        (in_binary(["a", "bc"])[0].replace(b"[2]", b"[1]"), "head", "2 elements in a tensor of shape [1]"),
        (in_binary(["a", "bc"])[0].replace(b"\2\0\0\0", b"\xff\xff\xff\xff"), "head", "end within element"),
        (in_binary(["a", "bc"])[0][:-2] + b"\xc3(", "head", "Text 1 is not UTF-8"),
        (in_binary(["a"])[0].replace(b'"shape"', b'"data": ["a"], "shape"'), "head", "has data and a binary_data_size"),
    ],
)
def test_wrong_binary_data_are_refused_in_words(
    client: httpx.Client, body: bytes, length: str | None, words: str
) -> None:
    """Lengths that do not fit each other, and bytes that are no text."""
    if length == "head":
        length = str(body.rindex(b"}") + 1)
    elif length == "-2":
        length = str(len(body) - 2)
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    response = client.post(INFER, content=body, headers=headers)
    assert response.status_code == 400
    assert words in response.json()["error"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("inputs", "outputs", "parameters", "id", "name", "datatype", "shape", "data", "binary_data_size", "timeout")


def spoiled(draw: st.DrawFn) -> bytes:
    """A good request with one of its values replaced, taken out or doubled."""
    request = asking("a", "b", id="x", parameters={"timeout": 10**7}, outputs=[{"name": "tokens", "parameters": {}}])
    holder: Any = request
    for _ in range(draw(st.integers(0, 3))):
        inner = [
            part for part in (holder.values() if isinstance(holder, dict) else holder) if isinstance(part, dict | list)
        ]
        holder = draw(st.sampled_from(inner)) if inner else holder
    if isinstance(holder, dict):
        holder[draw(st.sampled_from(KEYS))] = draw(JSON_VALUES)
    elif holder and draw(st.booleans()):
        holder[draw(st.integers(0, len(holder) - 1))] = draw(JSON_VALUES)
    else:
        holder.append(draw(JSON_VALUES))
    written = json.dumps(request).encode()
    cut = draw(st.integers(0, len(written)))
    return draw(st.sampled_from([written, written[:cut], written + draw(st.binary(max_size=8))]))


@settings(max_examples=100)
@given(body=st.binary(max_size=60) | st.composite(spoiled)(), length=st.none() | st.integers(-3, 300))
def test_no_body_breaks_the_service(service: Served, body: bytes, length: int | None) -> None:
    """Whatever is sent, it is answered or refused with 400 in words: never a 500, never another request's answer."""
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    response = service.client.post(INFER, content=body, headers=headers)
    assert response.status_code in (200, 400, 504)
    if response.status_code != 200:
        assert set(response.json()) == {"error"}


def test_a_large_body_is_refused_and_its_client_sees_it(client: httpx.Client, service: Served) -> None:
    """413 by its header or while it comes, though the client sends on; nothing beyond the limit is held."""
    for content in (b"x" * 5_000_000, (b"x" * 50_000 for _ in range(100))):
        response = client.post(INFER, content=content)
        assert response.status_code == 413
        assert "at most 100000 bytes" in response.json()["error"]
    assert service.front.room.free_bytes == ROOM


def test_encodings_are_not_unpacked(client: httpx.Client) -> None:
    """A body that says it is compressed is refused, whatever it would become."""
    response = client.post(INFER, content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert client.post(INFER, json=asking("a"), headers={"Content-Encoding": "identity"}).status_code == 200


def raw(service: Served, head: str) -> socket.socket:
    """A connection on which the head of a request has been sent."""
    connection = socket.create_connection(service.address, timeout=30)
    connection.sendall(head.encode())
    return connection


POST = f"POST {INFER} HTTP/1.1\r\nHost: here\r\n"


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    with connection, suppress(ConnectionResetError):  # by which it ends for who sends on
        while some := connection.recv(65_536):
            received += some
    return received


def test_a_body_that_never_comes_is_waited_for_in_bounds(service: Served, short_linger: None) -> None:
    """408 after the seconds that a body has, whether nothing came or a byte now and then; the connection is closed."""
    silent = raw(service, POST + "Content-Length: 50\r\n\r\n")
    slow = raw(service, POST + "Content-Length: 50\r\n\r\n")

    def trickle() -> None:
        for _ in range(100):
            try:
                slow.sendall(b"{")
            except OSError:
                return
            time.sleep(0.05)

    trickling = threading.Thread(target=trickle)
    trickling.start()
    for connection in (slow, silent):
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 0.5 s" in answer
    trickling.join()
    assert service.front.room.free_bytes == ROOM


def test_a_head_that_never_comes_is_waited_for_in_bounds(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request, or with half of one, or half of a second one, is closed."""
    monkeypatch.setattr(httpserver.PatientProtocol, "head_seconds", 0.3)
    whole = "GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
    for head in ("", "GET /livez HTT", whole + "GET /li"):
        assert all_of(raw(service, head)).count(b"200 OK") == head.count("\r\n\r\n")


def test_a_connection_outlives_many_requests(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a head begins anew with each request, and not while one is being answered."""
    monkeypatch.setattr(httpserver.PatientProtocol, "head_seconds", 0.5)
    with raw(service, "") as connection:
        for _ in range(8):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
            received = b""
            while not received.endswith(b"\r\n\r\nok\n"):
                received += connection.recv(65_536) or pytest.fail("the connection was closed")
            time.sleep(0.1)


def test_an_answer_is_sent_at_once(service: Served) -> None:
    """No body waits until the client has confirmed its head."""
    with raw(service, "GET /livez HTTP/1.1\r\nHost: here\r\n\r\n") as connection:
        assert connection.recv(65_536)
        sockets = [protocol.transport.get_extra_info("socket") for protocol in service.server.server_state.connections]
        assert sockets
        assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets)


@pytest.mark.parametrize("head", ["\0\1\2\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\n" + "a: b\r\n" * 20_000])
def test_what_is_no_http_is_refused(service: Served, head: str) -> None:
    """A head of rubbish, or without an end, is a 400."""
    assert all_of(raw(service, head)).startswith(b"HTTP/1.1 400 ")


def test_bodies_share_a_room(service: Served) -> None:
    """While others' bodies fill it, one more is told when to come again; what they gave up is free again."""
    half = [raw(service, POST + "Content-Length: 90000\r\n\r\n" + "x" * 80_000)]
    wait_until(lambda: service.front.room.free_bytes == ROOM - 80_000)
    response = service.client.post(INFER, content=b"x" * 99_000)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    half.pop().close()
    wait_until(lambda: service.front.room.free_bytes == ROOM)
    assert service.client.post(INFER, json=asking("a")).status_code == 200


def test_a_client_that_goes_away_takes_its_work_along(service: Served) -> None:
    """What nobody waits for any more leaves the queue, and is counted as gone."""
    body = json.dumps(asking("goes")).encode()
    gone = service.sample("corpuscore_requests_total", front="http", code="499")
    with service.busy():
        with raw(service, POST + f"Content-Length: {len(body)}\r\n\r\n" + body.decode()):
            wait_until(lambda: service.batcher.depth == 1)
        wait_until(lambda: service.batcher.depth == 0)
        wait_until(lambda: service.sample("corpuscore_requests_total", front="http", code="499") == gone + 1)
    assert ["goes"] not in service.backend.begun


@pytest.mark.parametrize("how", ["header", "parameter", "both"])
def test_a_deadline_ends_the_wait(service: Served, how: str) -> None:
    """504 when the time that the client gives is over, the shorter one where it gives two."""
    headers = {"Request-Timeout": "0.2" if how == "header" else "30"} if how != "parameter" else {}
    parameters = {"timeout": 200_000} if how != "header" else {}
    with service.held():
        response = service.client.post(INFER, json=asking("late", parameters=parameters), headers=headers)
    assert response.status_code == 504
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("header", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_wrong_deadline_is_refused(client: httpx.Client, header: str) -> None:
    """A time that is no positive number of seconds."""
    response = client.post(INFER, json=asking("a"), headers={"Request-Timeout": header})
    assert response.status_code == 400
    assert "Request-Timeout" in response.json()["error"]


def test_a_full_queue_refuses_at_once() -> None:
    """429 with a hint in whole seconds, before a body is read; who waits already is answered."""
    with served(most_requests=2) as running, running.busy(waiting=2):
        response = running.client.post(INFER, json=asking("one more"))
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert "2 requests wait" in response.json()["error"]
        assert running.sample("corpuscore_queue_requests") == 2
        with raw(running, POST + "Content-Length: 50\r\n\r\n") as unread:
            assert unread.recv(65_536).startswith(b"HTTP/1.1 429 ")


def test_a_service_that_drains_finishes_what_it_has() -> None:
    """It says that it is not ready, is alive all the same, answers who waits, refuses what comes, and keeps nobody."""
    with served() as running:
        with running.busy(waiting=1):
            draining = asyncio.run_coroutine_threadsafe(running.batcher.drain(), running.loop)
            wait_until(lambda: not running.batcher.ready)
            for path in ("/readyz", "/v2/health/ready", "/v2/models/letters/ready"):
                assert running.client.get(path).status_code == 503
            for path in ("/livez", "/v2/health/live", "/v2/models/letters", "/metrics", "/"):
                assert running.client.get(path).status_code == 200
            response = running.client.post(INFER, json=asking("late"))
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert response.headers["connection"] == "close"
        draining.result(30)


def test_a_text_that_cannot_be_scored_is_null_and_said_why() -> None:
    """The others have their scores; in binary its row is NaN."""
    with served(backend=Held(free=True, memory=20)) as running:
        texts = ["aeix", "y" * 28, "soup"]
        response = running.client.post(INFER, json=asking(*texts))
        assert outputs_of(response)["probabilities"]["data"][2:4] == [None, None]
        why = json.loads(response.json()["parameters"]["failed"])
        assert why == {"1": ["out_of_memory", "out of memory at 30 tokens"]}
        response = running.client.post(INFER, json=asking(*texts, parameters={"binary_data_output": True}))
        length = int(response.headers["inference-header-content-length"])
        seen = np.frombuffer(response.content[length : length + 24], "<f4").reshape(3, 2)
        np.testing.assert_array_equal(seen[[0, 2]], expected(["aeix", "soup"]))
        assert np.isnan(seen[1]).all()
        assert running.sample("corpuscore_rejects_total", reason="out_of_memory") == 2


class Broken(Held):
    """Letters that score nothing."""

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Fail."""
        raise ValueError("broken")


def test_a_model_that_fails_for_every_text_is_said_to() -> None:
    """500 with the reason, for who waited and for who comes; the service is not ready any more."""
    with served(backend=Broken(free=True)) as running:
        for texts in ([f"text {number}" for number in range(20)], ["one more"]):
            response = running.client.post(INFER, json=asking(*texts))
            assert response.status_code == 500
            assert "fails for every text" in response.json()["error"]
        assert running.client.get("/readyz").status_code == 503
        assert running.sample("corpuscore_requests_total", front="http", code="500") == 2


def test_the_token_is_asked_for() -> None:
    """401 without it, in each place but those that probes and people look at."""
    with served(token="open sesame") as running:
        shut = ["/v2", "/v2/models/letters", "/v2/models/letters/ready", "/v2/health/ready", "/v2/health/live"]
        wrong = ["", "Bearer", "Bearer other", "Basic open sesame", "Bearer open sesame2", "Bearer \u00fc"]
        for shown in wrong:
            headers = [(b"authorization", shown.encode())] if shown else []
            for path in shut:
                response = running.client.get(path, headers=headers)
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert running.client.post(INFER, json=asking("a"), headers=headers).status_code == 401
        for path in ("/", "/livez", "/readyz", "/metrics"):
            assert running.client.get(path).status_code == 200
        for scheme in ("Bearer", "bearer"):
            right = {"Authorization": f"{scheme} open sesame"}
            assert running.client.post(INFER, json=asking("a"), headers=right).status_code == 200
            assert running.client.get("/v2", headers=right).status_code == 200


def test_a_refused_token_costs_no_body(short_linger: None) -> None:
    """Who has no token is refused before its body is read."""
    with served(token="open sesame") as running:
        answer = all_of(raw(running, POST + "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"100 Continue" not in answer


def test_metrics_may_need_the_token_too() -> None:
    """By an option."""
    with served(token="open sesame", metrics_need_token=True) as running:
        assert running.client.get("/metrics").status_code == 401
        assert running.client.get("/metrics", headers={"Authorization": "Bearer open sesame"}).status_code == 200


def test_requests_are_counted(client: httpx.Client, service: Served) -> None:
    """By what they were answered; looking at health and metrics is not counted."""
    before = {
        code: service.sample("corpuscore_requests_total", front="http", code=code) for code in ("200", "400", "404")
    }
    client.post(INFER, json=asking("a"))
    client.post(INFER, content=b"{")
    client.post("/v2/models/other/infer", json=asking("a"))
    client.get("/livez")
    for code, count in before.items():
        assert service.sample("corpuscore_requests_total", front="http", code=code) == count + 1
    page = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    assert page.text.endswith("# EOF\n")


def test_many_clients_at_once_get_their_own(service: Served) -> None:
    """Each of many connections gets the scores of its own text, whatever it was batched with."""
    wrong: list[str] = []

    def ask(number: int) -> None:
        text = "ae" * (number % 7) + "x" * number
        with service.new_client() as own:
            for _ in range(3):
                response = own.post(INFER, json=asking(text, id=str(number)))
                seen = np.array(outputs_of(response)["probabilities"]["data"], np.float32)
                if response.json()["id"] != str(number) or (seen != expected([text])[0]).any():
                    wrong.append(text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_page_allows_nothing_from_elsewhere(client: httpx.Client) -> None:
    """Its policy names its own script and style, and it names no other place."""
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "//" not in response.text.replace("</", "").replace("<!", "")
