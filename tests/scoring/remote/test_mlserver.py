"""Our messages as a server of another maker reads and writes them: MLServer around transformers' pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from corpuscore.errors import MessageError
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelMetadataRequest, ServerReadyRequest
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of
from tests.scoring.checkpoints import LABELS, write_checkpoint
from tests.scoring.pipelines import pipeline_scores
from tests.servers import mlserver

TEXTS = ["Rain again; the river rose.", "größer, 更大, 🌧", "storm", "I love this! Really."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT."""
    return write_checkpoint(tmp_path_factory.mktemp("mlserver") / "tiny", max_position_embeddings=512)


@pytest.fixture(scope="module")
def stub(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The protocol's methods, at MLServer."""
    mlserver.require()
    with (
        mlserver.running_mlserver(model, tmp_path_factory.mktemp("server")) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield GRPCInferenceServiceStub(channel)


def test_what_it_says_of_a_model(stub: Any) -> None:
    """Labels and activation, which MLServer has among its parameters; names of tensors that are not ours."""
    assert stub.ServerReady(ServerReadyRequest()).ready
    card = ModelCard.of_response(stub.ModelMetadata(ModelMetadataRequest(name="emotions")))
    assert (card.name, card.platform, card.versions) == ("emotions", "transformers", ("7",))
    assert (card.labels, card.activation, card.fingerprint) == (LABELS, "sigmoid", "7")
    assert (card.input_name, card.output_name) == ("texts", "scores")


def test_its_scores(stub: Any, model: Path) -> None:
    """Those of the pipeline, whether MLServer answers with typed contents or with raw ones."""
    response = stub.ModelInfer(request_of("emotions", TEXTS, input_name="texts"), timeout=60)
    answer = scores_of(response, len(TEXTS), len(LABELS), "scores")
    np.testing.assert_allclose(answer.probabilities_DL, pipeline_scores(model, TEXTS), atol=1e-5)
    assert (answer.tokens_D, answer.truncated_D, answer.failed, answer.model_version) == (None, None, {}, "7")


def test_an_output_that_it_has_not(stub: Any) -> None:
    """One message with what there is."""
    response = stub.ModelInfer(request_of("emotions", TEXTS, input_name="texts"), timeout=60)
    with pytest.raises(MessageError, match="'scores'"):
        scores_of(response, len(TEXTS), len(LABELS))
