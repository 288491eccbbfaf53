from __future__ import annotations

import inspect

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from corpuscore import errors
from corpuscore.errors import CorpuscoreError, PermanentError
from corpuscore.orchestration.retries import RetryByType

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CorpuscoreError)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_decides(kind: type[CorpuscoreError]) -> None:
    """A permanent error fails at once, and says why; others take Airflow's retries."""
    decision = RetryByType().evaluate(kind("value"), try_number=1, max_tries=3)
    if issubclass(kind, PermanentError):
        assert decision.action is RetryAction.FAIL
        assert decision.reason == f"{kind.__name__} is permanent: trying again cannot help."
    else:
        assert decision.action is RetryAction.DEFAULT


def test_an_unknown_error_is_tried_again() -> None:
    """Airflow's own troubles are not ours to call permanent."""
    assert RetryByType().evaluate(OSError("pod evicted"), 1, 3).action is RetryAction.DEFAULT
