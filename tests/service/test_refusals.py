"""What errors mean to clients."""

from __future__ import annotations

import pickle

import grpc
import pytest

from corpuscore import errors
from corpuscore.errors import CorpuscoreError
from corpuscore.service.refusals import draining, meaning_of, unauthorised, unknown_model


@pytest.mark.parametrize(
    ("error", "status", "http", "retry"),
    [
        (errors.MessageError("a"), "INVALID_ARGUMENT", 400, None),
        (errors.MessageTooLarge("a"), "INVALID_ARGUMENT", 413, None),
        (errors.JobError("a"), "INVALID_ARGUMENT", 400, None),
        (errors.Overloaded("a", retry_seconds=2.5), "RESOURCE_EXHAUSTED", 429, 2.5),
        (errors.Expired("a"), "DEADLINE_EXCEEDED", 504, None),
        (errors.ModelError("a"), "INTERNAL", 500, None),
        (draining(), "UNAVAILABLE", 503, 1.0),
        (unauthorised(), "UNAUTHENTICATED", 401, None),
        (unknown_model("x", "", "m", "f"), "NOT_FOUND", 404, None),
        (unknown_model("m", "g", "m", "f"), "NOT_FOUND", 404, None),
    ],
)
def test_each_error_has_its_status(error: CorpuscoreError, status: str, http: int, retry: float | None) -> None:
    """Both protocols say the same, and a retry is hinted at only where it can help."""
    meaning = meaning_of(error)
    assert (meaning.grpc, meaning.http, meaning.retry_seconds) == (status, http, retry)
    assert hasattr(grpc.StatusCode, meaning.grpc)


def test_the_model_that_is_there() -> None:
    """Its name with its version, or with none."""
    assert unknown_model("m", "", "m", "f") is None
    assert unknown_model("m", "f", "m", "f") is None


def test_the_hint_crosses_processes() -> None:
    """An Overloaded keeps its seconds when it is pickled."""
    copy = pickle.loads(pickle.dumps(errors.Overloaded("full", retry_seconds=7.0)))  # noqa: S301  # our own bytes
    assert (copy.retry_seconds, str(copy)) == (7.0, "full.")
