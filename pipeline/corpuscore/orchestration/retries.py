"""The one place where an error's type becomes Airflow's decision to try again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.context import Context
from airflow.sdk.definitions.retry_policy import RetryDecision

from corpuscore.errors import PermanentError
from corpuscore.orchestration.telling import Told


class RetryByType(RetryPolicy):
    """A permanent error fails at once; all others take the task's retries and backoff.

    Errors of a type that is not ours are repeated too, although they are not known to be transient: here they come
    from Airflow or its host as often as from a bug, repeating is safe since finished work is found by its receipts,
    and the number of retries bounds it.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide; the error and this reason appear in the task's log."""
        error = exception.error if isinstance(exception, Told) else exception
        if isinstance(error, PermanentError):
            return RetryDecision.fail(reason=f"{type(error).__name__} is permanent: trying again cannot help.")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing but its name: there is nothing to configure."""
        return {"__type": type(self).__name__}


#: default_args of every DAG here: 30 s, 1 min, 2 min, 4 min.
RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "retry_policy": RetryByType(),
}
