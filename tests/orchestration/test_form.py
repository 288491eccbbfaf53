from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.orchestration.form import job_params

FIELDS = Job.model_json_schema()["properties"]


def test_the_form_has_the_fields_of_the_job() -> None:
    """Whoever adds a field to the Job adds it to the form, in the same place and section."""
    params = job_params({})
    assert list(params) == list(FIELDS)
    assert [param.schema["section"] for param in params.values()] == [field["section"] for field in FIELDS.values()]
    assert all(param.schema["title"] and param.schema["description_md"] for param in params.values())


def test_the_form_starts_with_the_jobs_defaults() -> None:
    """What may be left out is filled in as the Job does it; what must be given is empty."""
    params = job_params({})
    assert {name for name, param in params.items() if not param.has_value} == {
        *Job.model_json_schema()["required"],
        "threshold",
        "workers",
    }
    given = {"corpus": ["a"], "work": "w", "warehouse": "duckdb:///f"}
    filled = {name: param.value for name, param in params.items() if name not in given} | given
    assert Job.build(filled) == Job.build(given)


def test_defaults_are_taken_over() -> None:
    """A site says once where its corpus is."""
    assert job_params({"corpus": ["s3://bucket/"]})["corpus"].value == ["s3://bucket/"]


def test_an_unknown_default_is_refused() -> None:
    """A misspelt setting is an error that lists the right names, not one without effect."""
    with pytest.raises(JobError, match="corpora.*corpus, format"):
        job_params({"corpora": ["s3://bucket/"]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("corpus", []),
        ("corpus", "s3://bucket/"),
        ("format", "xml"),
        ("partition_rows", 0),
        ("max_tokens", 1),
        ("max_reject_fraction", 1.5),
        ("departed", "drop"),
        ("table", "scores; drop table scores"),
        ("cluster", "dask-scheduler:8786"),
        ("workers", 0),
    ],
)
def test_the_form_refuses_what_the_job_refuses(field: str, value: Any) -> None:
    """The form, and the API behind it, refuse a value before a run starts."""
    with pytest.raises(ParamValidationError):
        job_params({})[field].resolve(value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", None),
        ("workers", 4),
        ("keep_columns", None),
        ("id_columns", []),
        ("cluster", "conn://dask"),
        ("cluster", "tls://scheduler:8786"),
        ("warehouse", "conn://warehouse"),
        ("table", "analytics.scores"),
    ],
)
def test_the_form_takes(field: str, value: Any) -> None:
    """What a Job takes, and what names an Airflow connection, passes."""
    assert job_params({})[field].resolve(value) == value


def test_lists_are_free_text() -> None:
    """Airflow makes the examples of a list its only choices, so they are told in words instead."""
    corpus = job_params({})["corpus"].schema
    assert "examples" not in corpus
    assert "s3://my-bucket/paragraphs/" in corpus["description_md"]
