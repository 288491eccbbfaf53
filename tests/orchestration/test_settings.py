from __future__ import annotations

import json

import pytest

from corpuscore.errors import JobError
from corpuscore.orchestration import settings


def test_nothing_is_set_at_first() -> None:
    """Without configuration the DAG has no schedule and a plain form."""
    assert settings.schedule() is None
    assert settings.defaults() == {}
    assert settings.parallel_chunks() == 16


def test_settings_come_from_airflows_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual AIRFLOW__SECTION__OPTION variables set them."""
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__SCHEDULE", "@daily")
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__DEFAULTS", json.dumps({"table": "t"}))
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__PARALLEL_CHUNKS", "3")
    assert (settings.schedule(), settings.defaults(), settings.parallel_chunks()) == ("@daily", {"table": "t"}, 3)


@pytest.mark.parametrize("text", ["{corpus: s3://bucket/}", "[]", '"s3://bucket/"'])
def test_defaults_that_are_no_object_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message shows the value and how it should look."""
    monkeypatch.setenv("AIRFLOW__CORPUSCORE__DEFAULTS", text)
    with pytest.raises(JobError, match="JSON object"):
        settings.defaults()
