"""The way to a service does to answers what it says, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from corpuscore.errors import MessageError
from corpuscore.inference.open_inference_pb2 import ModelInferResponse
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.inference.tensors import request_of, scores_of
from corpuscore.scoring import load_scorer
from tests.faults.cases import services
from tests.faults.processes import until
from tests.faults.service import NAME, Service, Way, late
from tests.scoring.checkpoints import LABELS, write_checkpoint

TEXTS = ["rain again", "a brass band"]


def test_the_way_to_a_service(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As many answers as were asked for are spoiled; the others are the service's, also of one that was killed."""
    model = write_checkpoint(tmp_path / "model", max_position_embeddings=512)
    service = Service(model, tmp_path)
    request.addfinalizer(service.kill)
    way = Way(service.start())
    request.addfinalizer(way.end)
    expected = load_scorer(str(model), device="cpu").score(TEXTS)
    with grpc.insecure_channel(way.url.removeprefix("grpc://").partition("/")[0]) as channel:
        stub: Any = GRPCInferenceServiceStub(channel)

        def asked(seconds: float = 60) -> ModelInferResponse:
            answer: ModelInferResponse = stub.ModelInfer(request_of(NAME, TEXTS), timeout=seconds)
            return answer

        def right() -> None:
            found = scores_of(asked(), len(TEXTS), len(LABELS))
            np.testing.assert_array_equal(found.probabilities_DL, expected)

        def answers() -> bool:
            with suppress(grpc.RpcError):
                asked()
                return True
            return False

        way.spoil(services._nan, after=1, times=1)
        right()
        assert np.isnan(scores_of(asked(), len(TEXTS), len(LABELS)).probabilities_DL).all()
        assert way.spoiled
        for how in (services._few_rows, services._more_labels):
            way.spoil(how, times=1)
            with pytest.raises(MessageError, match="shape"):
                scores_of(asked(), len(TEXTS), len(LABELS))
        way.spoil(services._another_version)
        assert asked().model_version == "another"
        way.spoil(late(60))
        with pytest.raises(grpc.RpcError) as over:
            asked(0.5)
        assert over.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        way.heal()
        service.kill()
        with pytest.raises(grpc.RpcError) as gone:
            asked()
        assert gone.value.code() == grpc.StatusCode.UNAVAILABLE
        service.start()
        until(answers, 30, "an answer of the service")
        right()
