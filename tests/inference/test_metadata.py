"""What a model says of itself: there and back, and what other servers say of theirs."""

from __future__ import annotations

import pytest

from corpuscore.errors import MessageError
from corpuscore.inference.metadata import ModelCard, property_text
from corpuscore.inference.open_inference_pb2 import InferParameter, ModelMetadataResponse
from corpuscore.records import ScorerInfo

INFO = ScorerInfo(("joy", "Trauer, ß"), "sigmoid", "0123456789abcdef", "bert", "int8", "/models/mine/", 22_000_000)
CARD = ModelCard.of("mine", INFO, max_tokens=512, long_documents="mean", max_bytes=2**24)


def test_a_card_there_and_back() -> None:
    """All of it crosses the wire; the folders above the model do not."""
    response = ModelMetadataResponse.FromString(CARD.to_response().SerializeToString())
    assert ModelCard.of_response(response) == CARD
    assert list(response.versions) == ["0123456789abcdef"]
    assert response.platform == "corpuscore_bert"
    assert CARD.model == "mine"
    assert CARD.to_json()["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    assert CARD.to_json()["properties"]["labels"] == '["joy","Trauer, ß"]'


def test_a_name_of_the_hub_is_kept() -> None:
    """Owner and name are not folders."""
    info = ScorerInfo(("a",), "softmax", "f" * 16, "bert", "fp32", "owner/name@v1")
    assert ModelCard.of("m", info, max_tokens=8, long_documents="truncate").model == "owner/name@v1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"", ""),
        ("größe".encode(), "größe"),
        (InferParameter(string_param='["a"]').SerializeToString(), '["a"]'),
        (InferParameter(int64_param=512).SerializeToString(), "512"),
        (InferParameter(bool_param=True).SerializeToString(), "True"),
        (InferParameter(string_param="x" * 300).SerializeToString(), "x" * 300),
        (b"\x01\x02", "\x01\x02"),
    ],
)
def test_properties_of_either_kind(value: bytes, text: str) -> None:
    """A string is read as it is, and an InferParameter by what is in it."""
    assert property_text(value) == text


def test_a_server_that_says_little() -> None:
    """Without properties there are no labels; tensors are found by their types."""
    response = ModelMetadataResponse(name="other", versions=["1", "2"], platform="x")
    response.inputs.add(name="ids", datatype="INT64", shape=[-1])
    response.inputs.add(name="args", datatype="BYTES", shape=[-1])
    response.outputs.add(name="scores", datatype="FP32", shape=[-1, 3])
    card = ModelCard.of_response(response)
    assert (card.labels, card.fingerprint, card.versions) == ((), "", ("1", "2"))
    assert (card.input_name, card.output_name) == ("args", "scores")
    nothing = ModelCard.of_response(ModelMetadataResponse(name="bare", versions=["v1"]))
    assert (nothing.input_name, nothing.output_name, nothing.fingerprint) == ("text", "probabilities", "v1")


def test_a_model_of_something_else() -> None:
    """One that takes no texts is no classifier of texts."""
    response = ModelMetadataResponse(name="other")
    response.inputs.add(name="pixels", datatype="FP32", shape=[-1, 224, 224])
    with pytest.raises(MessageError, match="'pixels' FP32"):
        ModelCard.of_response(response)


@pytest.mark.parametrize("labels", [b"joy, anger", b'{"joy": 1}', b"[1, 2]"])
def test_labels_that_are_no_list(labels: bytes) -> None:
    """Labels are believed only where they are a list of strings."""
    with pytest.raises(MessageError, match="JSON list of strings"):
        ModelCard.of_response(ModelMetadataResponse(name="other", properties={"labels": labels}))


@pytest.mark.parametrize("value", ["-1", "1e3", "", "many", "9" * 5_000])
def test_numbers_that_are_none(value: str) -> None:
    """What a server calls a number and Python cannot count with is 0: nothing is known of it."""
    response = ModelMetadataResponse(name="m", properties={"max_tokens": value.encode()})
    assert ModelCard.of_response(response).max_tokens == 0
