"""The one place where an error's type becomes Airflow's decision to try again."""

from __future__ import annotations

from typing import Any

from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.context import Context
from airflow.sdk.definitions.retry_policy import RetryDecision

from pipeline.errors import PermanentError


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
        if isinstance(exception, PermanentError):
            return RetryDecision.fail(reason=f"{type(exception).__name__} is permanent: trying again cannot help.")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing but its name: there is nothing to configure."""
        return {"__type": type(self).__name__}
