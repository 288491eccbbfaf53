"""A server of another maker: MLServer around transformers' pipeline; our messages, and a corpus scored through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from corpuscore.errors import CorpuscoreError, MessageError
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelMetadataRequest, ServerReadyRequest
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of
from tests.scoring.checkpoints import LABELS, write_checkpoint
from tests.scoring.pipelines import pipeline_scores
from tests.servers import mlserver
from tests.servers.jobs import MakeJob, query, run_all

TEXTS = ["Rain again; the river rose.", "größer, 更大, 🌧", "storm", "I love this! Really."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT."""
    return write_checkpoint(tmp_path_factory.mktemp("mlserver") / "tiny", max_position_embeddings=512)


@pytest.fixture(scope="module")
def port(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of MLServer, which serves it."""
    mlserver.require()
    with mlserver.running_mlserver(model, tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture(scope="module")
def stub(port: int) -> Iterator[Any]:
    """The protocol's methods, at MLServer."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
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


def _scored(make_job: MakeJob, url: str) -> list[tuple[Any, ...]]:
    """What the table holds of TEXTS after a run with that model, in their order."""
    job = make_job(model=url, device="auto")
    folder = Path(job.corpus[0])
    folder.mkdir(parents=True, exist_ok=True)
    documents = [{"id": str(at), "text": text} for at, text in enumerate(TEXTS)]
    (folder / "a.jsonl").write_bytes(b"".join(orjson.dumps(document) + b"\n" for document in documents))
    assert run_all(job).scored == len(TEXTS)
    return query(job, f"select {', '.join(LABELS)} from scores order by document_id::int")


@pytest.mark.parametrize("name", ["emotions", "mute?labels=joy,anger,fear,calm,pride&activation=sigmoid"])
def test_a_corpus_through_it(port: int, model: Path, make_job: MakeJob, name: str) -> None:
    """The scores of the pipeline, with labels from the metadata or from the address."""
    rows = _scored(make_job, f"grpc://127.0.0.1:{port}/{name}")
    np.testing.assert_allclose(np.array(rows, np.float32), pipeline_scores(model, TEXTS), atol=1e-5)


def test_a_model_that_names_no_labels(port: int, make_job: MakeJob) -> None:
    """The plan says what to add to the address."""
    with pytest.raises(CorpuscoreError, match="labels"):
        _scored(make_job, f"grpc://127.0.0.1:{port}/mute")
