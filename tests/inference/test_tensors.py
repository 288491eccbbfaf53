"""Texts and scores as messages: there and back, in both forms, and what is refused with which words."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.errors import MessageError, MessageTooLarge
from corpuscore.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from corpuscore.inference.tensors import check_outputs, request_of, response_of, scores_of, texts_of
from corpuscore.records import Skipped

#: Any text that UTF-8 can say.
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=12)


@given(TEXTS)
def test_texts_there_and_back(texts: list[str]) -> None:
    """Raw contents survive the wire, whatever the texts; so do typed ones."""
    request = ModelInferRequest.FromString(request_of("m", texts, version="f", id="7").SerializeToString())
    assert (request.model_name, request.model_version, request.id) == ("m", "f", "7")
    assert texts_of(request) == texts
    typed = ModelInferRequest(model_name="m")
    typed.inputs.add(name="text", datatype="BYTES", shape=[len(texts), 1])
    typed.inputs[0].contents.bytes_contents.extend(text.encode() for text in texts)
    assert texts_of(typed) == texts


def _renamed(request: ModelInferRequest) -> None:
    request.inputs[0].name = "prompt"


def _no_input(request: ModelInferRequest) -> None:
    del request.inputs[:]


def _two_inputs(request: ModelInferRequest) -> None:
    request.inputs.add(name="text", datatype="BYTES", shape=[2])


def _numbers(request: ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP32"


def _shape(*shape: int) -> Callable[[ModelInferRequest], None]:
    def change(request: ModelInferRequest) -> None:
        request.inputs[0].shape[:] = shape

    return change


def _raw(contents: bytes) -> Callable[[ModelInferRequest], None]:
    def change(request: ModelInferRequest) -> None:
        request.raw_input_contents[:] = [contents]

    return change


def _both(request: ModelInferRequest) -> None:
    request.inputs[0].contents.bytes_contents.append(b"a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_renamed, "Inputs: 'prompt'. There is one, 'text'"),
        (_no_input, "Inputs: none"),
        (_two_inputs, "Inputs: 'text', 'text'"),
        (_numbers, "'FP32' of shape .2."),
        (_shape(), "of shape .."),
        (_shape(2, 3), "of shape .2, 3."),
        (_shape(1, 2, 1), "of shape .1, 2, 1."),
        (_shape(-1), "of shape .-1."),
        (_shape(3), "2 elements in a tensor of shape .3."),
        (_shape(1), "2 elements in a tensor of shape .1."),
        (_shape(10**6), "1000000 texts in one request"),
        (_both, "1 raw contents and 1 typed elements"),
        (_raw(b"\x01\x00"), "Raw contents of 2 bytes end within element 0"),
        (_raw(b"\x01\x00\x00\x00a\x09\x00\x00\x00b"), "end within element 1"),
        (_raw(b"\x01\x00\x00\x00a\xff\xff\xff\xffb"), "end within element 1"),
        (_raw(b"\x01\x00\x00\x00a\x02\x00\x00\x00b\xe9"), "Text 1 is not UTF-8: byte 0xe9 at 1"),
        (_raw(b"\x01\x00\x00\x00a\x03\x00\x00\x00\xed\xa0\x80"), "Text 1 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(change: Callable[[ModelInferRequest], None], words: str) -> None:
    """Each fault has its own words, and none is taken for something else."""
    request = request_of("m", ["a", "b"])
    change(request)
    with pytest.raises(MessageError, match=words):
        texts_of(request)


def test_more_texts_than_are_taken() -> None:
    """The bound is the caller's, and its error tells that parts of the request would do."""
    assert texts_of(request_of("m", ["a"] * 3), 3) == ["a"] * 3
    with pytest.raises(MessageTooLarge, match="at most 3"):
        texts_of(request_of("m", ["a"] * 4), 3)


@given(st.binary(max_size=40), st.integers(-3, 9))
def test_no_bytes_are_a_surprise(raw: bytes, count: int) -> None:
    """Whatever lies in raw contents is texts or a MessageError."""
    request = request_of("m", ["a"])
    request.raw_input_contents[:] = [raw]
    request.inputs[0].shape[:] = [count]
    try:
        texts = texts_of(request)
    except MessageError:
        return
    assert b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts) == raw


def _response(outputs: tuple[str, ...] = ()) -> ModelInferResponse:
    rows = np.array([[0.25, 0.5, 1], [np.nan] * 3], np.float32)
    made = response_of(
        rows, np.array([5, 9], np.int32), np.array([False, True]), {1: Skipped("failed", "ValueError: no")},
        model="m", version="f", id="7", outputs=outputs,
    )  # fmt: skip
    read: ModelInferResponse = ModelInferResponse.FromString(made.SerializeToString())
    return read


def test_scores_there_and_back() -> None:
    """Bits, counts, flags, reasons and the version come back as they were sent."""
    response = _response()
    assert (response.model_name, response.id) == ("m", "7")
    answer = scores_of(response, 2, 3)
    np.testing.assert_array_equal(answer.probabilities_DL, np.array([[0.25, 0.5, 1], [np.nan] * 3], np.float32))
    assert answer.tokens_D is not None
    assert answer.truncated_D is not None
    assert answer.tokens_D.tolist() == [5, 9]
    assert answer.truncated_D.tolist() == [False, True]
    assert answer.failed == {1: Skipped("failed", "ValueError: no")}
    assert answer.model_version == "f"


def test_only_what_is_asked_for() -> None:
    """Outputs come in the order in which they are named; an unknown one is refused."""
    response = _response(("tokens", "probabilities"))
    assert [tensor.name for tensor in response.outputs] == ["tokens", "probabilities"]
    answer = scores_of(response, 2, 3)
    assert answer.tokens_D is not None
    assert answer.truncated_D is None
    with pytest.raises(MessageError, match="No output 'logits'"):
        check_outputs(["logits"])


def test_typed_scores_of_other_servers() -> None:
    """A server that sends typed contents, in doubles and under a name of its own, is understood."""
    response = ModelInferResponse(model_name="other")
    tensor = response.outputs.add(name="scores", datatype="FP64", shape=[2, 2])
    tensor.contents.fp64_contents.extend([0.5, 0.25, 1, 0])
    answer = scores_of(response, 2, 2, "scores")
    assert answer.probabilities_DL.dtype == np.float32
    assert answer.probabilities_DL.tolist() == [[0.5, 0.25], [1, 0]]
    assert (answer.tokens_D, answer.truncated_D, answer.failed, answer.model_version) == (None, None, {}, "")


def _fewer(response: ModelInferResponse) -> None:
    del response.raw_output_contents[-1]


def _short(response: ModelInferResponse) -> None:
    response.raw_output_contents[0] = response.raw_output_contents[0][:-3]


def _rows(response: ModelInferResponse) -> None:
    response.outputs[0].shape[:] = [1, 3]


def _strings(response: ModelInferResponse) -> None:
    response.outputs[0].datatype = "BYTES"


def _logits(response: ModelInferResponse) -> None:
    response.outputs[0].name = "logits"


def _why(said: str) -> Callable[[ModelInferResponse], None]:
    def change(response: ModelInferResponse) -> None:
        response.parameters["failed"].string_param = said

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_fewer, "3 outputs with 2 raw contents"),
        (_short, "holds 5.25 elements"),
        (_rows, "of shape .1, 3.. It is FP32 or FP64 or FP16 of shape .2, 3."),
        (_strings, "is 'BYTES'"),
        (_logits, "Outputs 'logits', 'tokens', 'truncated' in a response of 'm'"),
        (_why("nonsense"), "JSON object"),
        (_why('{"2": ["a", "b"]}'), "JSON object"),
        (_why('{"0": ["a"]}'), "JSON object"),
        (_why("[]"), "JSON object"),
    ],
)
def test_what_is_wrong_with_a_response_is_said(change: Callable[[ModelInferResponse], None], words: str) -> None:
    """Each fault of a server has its own words."""
    response = _response()
    change(response)
    with pytest.raises(MessageError, match=words):
        scores_of(response, 2, 3)
