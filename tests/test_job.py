from __future__ import annotations

import traceback
from typing import Any

import pytest

from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.options import ReadOptions, ScoreOptions, chosen
from corpuscore.words import flag_of

VALUES: dict[str, Any] = {"corpus": ["/data/corpus"], "work": "/data/work", "warehouse": "duckdb:////data/s.duckdb"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"corpus": []}, "corpus"),
        ({"corpus": ["/a", "/a"]}, "/a"),
        ({"keep_columns": ["text"]}, "text"),
        ({"warehouse": "postgresql://me:se/cret@host/db"}, "percent-encoded"),
        ({"table": "scores; drop table x"}, "drop table"),
        ({"max_tokens": 1}, "--max-tokens 1"),
        ({"max_reject_fraction": 1.5}, "1.5"),
        ({"cluster": "http://scheduler"}, "http://scheduler"),
        ({"cluster": "tcp://scheduler:8786", "workers": 3}, "workers"),
        ({"precision": "fp64"}, "fp64"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"partition_rows": 0}, "--partition-rows 0"),
    ],
)
def test_a_bad_value_is_named(change: dict[str, Any], named: str) -> None:
    """Every rule of a job names the value that breaks it and the next step."""
    with pytest.raises(JobError) as caught:
        Job.build({**VALUES, **change})
    assert named in str(caught.value)
    assert "Next:" in str(caught.value)


def test_a_job_is_written_down_without_its_secrets() -> None:
    """Passwords leave the addresses of warehouse and cluster, and nothing else does; the job connects as before."""
    given = {"warehouse": "postgresql://me:secret@host/db?sslmode=require", "cluster": "tls://me:secret@host:8786"}
    job = Job.build({**VALUES, **given})
    written = job.without_secrets()
    assert written.warehouse == "postgresql://me@host/db?sslmode=require"
    assert written.cluster == "tls://me@host:8786"
    assert job.warehouse == given["warehouse"]
    assert "secret" not in repr(job) + str(job)


@pytest.mark.parametrize(
    "change",
    [
        {"warehouse": "postgresql://me:Zq/42@host/db"},
        {"warehouse": "host=db user=me password=Zq42"},
        {"cluster": "http://me:Zq42@host:8786"},
        {"cluster": "tls://me:Zq/42@host:8786"},
        {"corpus": ["s3://me:Zq42@bucket/a", "s3://me:Zq42@bucket/a"]},
        {"work": ["s3://me:Zq42@bucket/a"]},
        {"warehose": "postgresql://me:Zq42@host/db"},
    ],
)
def test_a_refused_job_does_not_say_a_password(change: dict[str, Any]) -> None:
    """What is wrong with a value is said, and its secret is not."""
    with pytest.raises(JobError) as caught:
        Job.build({**VALUES, **change})
    assert "Zq" not in "".join(traceback.format_exception(caught.value))


def test_only_options_that_change_a_part_change_its_digest() -> None:
    """Window, pooling and reading options name other work; cluster, table and limits do not."""
    job = Job.build(VALUES)
    for same in ({"table": "other"}, {"cluster": "tcp://s:1"}, {"max_reject_fraction": 0.5}, {"partition_rows": 7}):
        assert Job.build({**VALUES, **same}).options_digest == job.options_digest
    for other in ({"text_column": "body"}, {"max_tokens": 128}, {"long_documents": "mean"}, {"id_columns": ["id"]}):
        assert Job.build({**VALUES, **other}).options_digest != job.options_digest


def test_an_option_at_its_default_names_no_other_work() -> None:
    """What is scored keeps its name when an option is added: a digest holds the options that were chosen alone."""
    assert chosen(ReadOptions()) == chosen(ScoreOptions()) == {}
    assert chosen(ReadOptions("body", keep_columns=("book",))) == {"text_column": "body", "keep_columns": ("book",)}
    assert (
        Job.build({**VALUES, "text_column": "text", "id_columns": []}).options_digest
        == Job.build(VALUES).options_digest
    )


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a\udfff"])
def test_what_no_file_can_hold_is_refused(text: str) -> None:
    """NUL and half a surrogate pair, in any argument, named before anything is made of it."""
    values: dict[str, Any] = {"corpus": ["a"], "work": "b", "warehouse": "duckdb:///c"}
    for name in ("corpus", "work", "warehouse", "model", "text_column", "id_columns", "cluster"):
        with pytest.raises(JobError, match=flag_of(name)):
            Job.build({**values, name: [text] if name in ("corpus", "id_columns") else text})
