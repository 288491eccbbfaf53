"""What can be set without editing the DAG: the section `[corpuscore]` of Airflow's own configuration.

    [corpuscore]
    schedule = @daily
    defaults = {"corpus": ["s3://bucket/paragraphs/"], "work": "s3://bucket/corpuscore/", "warehouse": "conn://warehouse"}

or, as everywhere in Airflow, `AIRFLOW__CORPUSCORE__SCHEDULE` and `AIRFLOW__CORPUSCORE__DEFAULTS` in the environment,
and `config.corpuscore` in the values of the Helm chart. Nothing is read from the metadata database, so parsing the
DAG stays cheap.
"""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk.configuration import conf

from pipeline.errors import JobError

SECTION = "corpuscore"


def schedule() -> str | None:
    """A cron expression or preset such as `@daily`; None: runs start by hand, by the API or by another DAG."""
    return conf.get(SECTION, "schedule", fallback="") or None


def parallel_chunks() -> int:
    """Chunks of one run that are in flight at a time."""
    return int(conf.get(SECTION, "parallel_chunks", fallback=16))


def defaults() -> dict[str, Any]:
    """Values that the form starts with, by field of the Job.

    Raises:
        JobError: The option is not a JSON object.
    """
    text = conf.get(SECTION, "defaults", fallback="") or "{}"
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_an_object(text) from error
    if not isinstance(values, dict):
        raise _not_an_object(text)
    return values


def _not_an_object(text: str) -> JobError:
    return JobError(
        f"The Airflow option [{SECTION}] defaults is {text!r}",
        rule="It is a JSON object of the form's fields",
        next_step='write it like {"corpus": ["s3://bucket/paragraphs/"]}',
    )
