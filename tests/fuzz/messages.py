"""Messages of the inference protocol, as a service gets them from clients, and a client from services."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
from google.protobuf.message import DecodeError

from corpuscore.errors import MessageError
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from corpuscore.inference.tensors import request_of, response_of, scores_of, texts_of
from corpuscore.records import ScorerInfo, Skipped
from corpuscore.service.httptensors import read_request

_MOST_TEXTS = 50
_INFO = ScorerInfo(("joy", "fear"), "sigmoid", "0" * 16, "bert", "fp32", "model", 9)


def read_message(data: bytes) -> None:
    """One of four, by the first byte; the second says how much of a request over HTTP is JSON, 0 all of it."""
    kind, body = (data[0] % 4 if data else 0), data[2:]
    with suppress(MessageError, DecodeError):
        (_over_http, _request, _response, _card)[kind](body, data[1] if len(data) > 1 else 0)


def _over_http(body: bytes, length: int) -> None:
    asked = read_request(body, length or None, _MOST_TEXTS)
    assert asked.outputs
    assert asked.timeout_seconds is None or asked.timeout_seconds > 0
    _are_texts(asked.texts)


def _request(body: bytes, _length: int) -> None:
    _are_texts(texts_of(ModelInferRequest.FromString(body), _MOST_TEXTS))


def _are_texts(texts: list[str]) -> None:
    assert len(texts) <= _MOST_TEXTS
    for text in texts:
        assert text.encode().decode() == text


def _response(body: bytes, _length: int) -> None:
    answer = scores_of(ModelInferResponse.FromString(body), 2, 2)
    assert answer.probabilities_DL.shape == (2, 2)
    assert answer.probabilities_DL.dtype == np.float32
    assert all(0 <= index < 2 for index in answer.failed)


def _card(body: bytes, _length: int) -> None:
    card = ModelCard.of_response(ModelMetadataResponse.FromString(body))
    assert all(isinstance(label, str) for label in card.labels)
    assert min(card.parameters, card.max_tokens, card.max_texts, card.max_bytes) >= 0


def messages() -> list[bytes]:
    """One of each kind, and requests over HTTP in both forms."""
    texts = ["a storm", "\u00e9\U0001f600"]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2]}
    wanted = [{"name": "tokens", "parameters": {"binary_data": True}}]
    plain = json.dumps(
        {"id": "1", "inputs": [{**tensor, "data": texts}], "outputs": wanted, "parameters": {"timeout": 9}}
    ).encode()
    raw = request_of("m", texts).raw_input_contents[0]
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    typed = request_of("m", texts)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.bytes_contents.extend(text.encode() for text in texts)
    rows = np.array([[0.25, 0.5], [np.nan, np.nan]], np.float32)
    failed = {1: Skipped("failed", "ValueError")}
    response = response_of(
        rows, np.array([3, 9], np.int32), np.array([False, True]), failed, model="m", version="0" * 16
    )
    card = ModelCard.of("m", _INFO, max_tokens=512, long_documents="truncate").to_response()
    return [
        b"\0\0" + plain,
        b"\0" + bytes([len(head)]) + head + raw,
        *(b"\1\0" + request.SerializeToString() for request in (request_of("m", texts), typed)),
        b"\2\0" + response.SerializeToString(),
        b"\3\0" + card.SerializeToString(),
    ]
