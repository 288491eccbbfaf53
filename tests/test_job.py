from __future__ import annotations

from typing import Any

import pytest

from corpuscore.errors import JobError
from corpuscore.job import Job, without_password

VALUES: dict[str, Any] = {"corpus": ["/data/corpus"], "work": "/data/work", "warehouse": "duckdb:////data/s.duckdb"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"corpus": []}, "corpus"),
        ({"corpus": ["/a", "/a"]}, "/a"),
        ({"keep_columns": ["text"]}, "text"),
        ({"warehouse": "mysql://here"}, "mysql"),
        ({"table": "scores; drop table x"}, "drop table"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"max_reject_fraction": 1.5}, "1.5"),
        ({"cluster": "http://scheduler"}, "http://scheduler"),
        ({"cluster": "tcp://scheduler:8786", "workers": 3}, "workers"),
        ({"precision": "fp64"}, "fp64"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"partition_rows": 0}, "partition_rows"),
    ],
)
def test_a_bad_value_is_named(change: dict[str, Any], named: str) -> None:
    """Every rule of a job names the value that breaks it and the next step."""
    with pytest.raises(JobError) as caught:
        Job.build({**VALUES, **change})
    assert named in str(caught.value)
    assert "Next:" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("duckdb:////data/s.duckdb", "duckdb:////data/s.duckdb"),
        ("postgresql://me:secret@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        ("postgresql:///db?host=/run/postgresql&password=secret", "postgresql:///db?host=/run/postgresql"),
        ("postgresql:///db?password=secret", "postgresql:///db"),
    ],
)
def test_a_job_is_written_down_without_its_password(url: str, expected: str) -> None:
    """The password leaves the URL, and nothing else does."""
    assert without_password(url) == expected
    assert Job.build({**VALUES, "warehouse": url}).without_password().warehouse == expected


def test_only_options_that_change_a_part_change_its_digest() -> None:
    """Window, pooling and reading options name other work; cluster, table and limits do not."""
    job = Job.build(VALUES)
    for same in ({"table": "other"}, {"cluster": "tcp://s:1"}, {"max_reject_fraction": 0.5}, {"partition_rows": 7}):
        assert Job.build({**VALUES, **same}).options_digest == job.options_digest
    for other in ({"text_column": "body"}, {"max_tokens": 128}, {"long_documents": "mean"}, {"id_columns": ["id"]}):
        assert Job.build({**VALUES, **other}).options_digest != job.options_digest
