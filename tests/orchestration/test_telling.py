from __future__ import annotations

import logging

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from corpuscore.errors import ClusterUnavailable, JobError
from corpuscore.job import Job
from corpuscore.orchestration.retries import RetryByType
from corpuscore.orchestration.telling import Told, in_form, told


def test_a_task_tells_three_lines_in_the_words_of_the_form(caplog: pytest.LogCaptureFixture) -> None:
    """What was found, the rule, what to do next; no traceback, and no option of a command line."""

    @told
    def plan(**values: object) -> Job:
        return Job.build(values)

    assert plan(corpus=["/data"], work="/work", warehouse="duckdb:////data/s.duckdb").table == "scores"
    with pytest.raises(Told):
        plan(corpus=["/data"], work="/work", warehouse="duckdb:////data/s.duckdb", partition_rows=-5)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [
        "“Rows a partition” -5: Input should be greater than or equal to 1",
        "Next: correct these fields of the form",
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_options_that_no_form_has_stay() -> None:
    """Commands are for whoever has a shell."""
    text = "With --departed fail: corpuscore rejects RUN --all, or raise --max-reject-fraction"
    assert in_form(text) == (
        "With “Departed objects” fail: corpuscore rejects RUN --all, or raise “Rejects at the most”"
    )


def test_what_was_told_is_retried_by_its_type() -> None:
    """As if the error itself had come; what is not ours goes through as it is."""
    policy = RetryByType()
    permanent, transient = Told(JobError("a")), Told(ClusterUnavailable("b"))
    assert policy.evaluate(permanent, 1, 4).action == RetryAction.FAIL
    assert policy.evaluate(transient, 1, 4).action == RetryAction.DEFAULT
    with pytest.raises(ZeroDivisionError):
        told(lambda: 1 / 0)()
