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

from corpuscore.errors import JobError

SECTION = "corpuscore"


def schedule() -> str | None:
    """A cron expression or preset such as `@daily`; None: runs start by hand, by the API or by another DAG."""
    return conf.get(SECTION, "schedule", fallback="") or None


def parallel_chunks() -> int:
    """Chunks of one run that are in flight at a time."""
    return int(conf.get(SECTION, "parallel_chunks", fallback=16))


def defaults(option: str = "defaults") -> dict[str, Any]:
    """Values that a form starts with, by field; those of score_corpus unless another option is named.

    Raises:
        JobError: The option is not a JSON object.
    """
    text = conf.get(SECTION, option, fallback="") or "{}"
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_an_object(option, text) from error
    if not isinstance(values, dict):
        raise _not_an_object(option, text)
    return values


def _not_an_object(option: str, text: str) -> JobError:
    return JobError(
        f"The Airflow option [{SECTION}] {option} is {text!r}",
        rule="It is a JSON object of the form's fields",
        next_step='write it like {"cluster": "tcp://scheduler:8786"}',
    )
