"""Every bad input ends with one clear message (value, rule, next step), the right exit status and no traceback."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from corpuscore.cli import main
from tests.servers.jobs import write_jsonl
from tests.servers.s3 import answering, point_at

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, tiny_model: str, dask_address: str) -> Run:
    """`corpuscore run` over tmp_path/corpus; values replace arguments, None leaves one out."""

    def call(**values: str | None) -> Result:
        arguments = {
            "corpus": str(tmp_path / "corpus"),
            "id-column": "id",
            "model": tiny_model,
            "device": "cpu",
            "work": str(tmp_path / "work"),
            "warehouse": f"duckdb:///{tmp_path}/scores.duckdb",
            "cluster": dask_address,
            **values,
        }
        flags = [part for name, value in arguments.items() if value is not None for part in (f"--{name}", value)]
        return CliRunner().invoke(main, ["run", *flags])

    return call


def assert_says(result: Result, *words: str, status: int = 1) -> None:
    """The message has these words and a next step; nothing looks like a crash."""
    said = result.output
    crash = "".join(traceback.format_exception(*result.exc_info)) if result.exc_info else ""
    assert result.exit_code == status, said + crash
    assert "Traceback" not in said
    assert "Next:" in said
    for word in words:
        assert word in said


def test_a_corpus_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """A missing file, an empty folder and a prefix without objects are named."""
    assert_says(run(corpus=str(tmp_path / "nowhere")), "nowhere")
    (tmp_path / "empty").mkdir()
    assert_says(run(corpus=str(tmp_path / "empty")), "empty", "no objects")


def test_a_bucket_that_is_not_there(run: Run, s3: str) -> None:
    """The store's own words become one sentence about the bucket."""
    assert_says(run(corpus="s3://no-such-bucket-at-all/x/"), "no-such-bucket-at-all")
    assert_says(run(corpus=f"{s3}/no/such/prefix/"), "no/such/prefix")


def test_credentials_that_the_store_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 is permanent, and says whose permission is missing."""
    with answering(lambda _request: (403, "InvalidAccessKeyId")) as endpoint:
        point_at(endpoint, monkeypatch)
        assert_says(run(corpus="s3://bucket/x/"), "s3://bucket", "credentials")


def test_a_format_that_is_unknown(run: Run, tmp_path: Path) -> None:
    """The object and the formats that there are stand in the message."""
    write_jsonl(tmp_path / "corpus" / "a.docx", ["1"])
    assert_says(run(), "a.docx", "jsonl")


@pytest.mark.parametrize("change", [{"text-column": "body"}, {"id-column": "number"}, {"keep-column": "author"}])
def test_a_column_that_is_missing(run: Run, tmp_path: Path, change: dict[str, str]) -> None:
    """A Parquet object without a column that was asked for stops the plan and lists the columns it has."""
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table({"id": ["1"], "text": ["a day"]}), tmp_path / "corpus" / "a.parquet")
    assert_says(run(**change), next(iter(change.values())), "text")


def test_a_parquet_object_that_is_corrupt(run: Run, tmp_path: Path) -> None:
    """It is named, and the rest is scored and kept."""
    write_jsonl(tmp_path / "corpus" / "good.jsonl", ["1", "2"])
    (tmp_path / "corpus" / "z.parquet").write_bytes(b"PAR1 this is not a table PAR1")
    assert_says(run(), "z.parquet")


def test_a_gzip_object_that_ends_early(run: Run, tmp_path: Path) -> None:
    """It fails for good; the other object's receipt is kept."""
    write_jsonl(tmp_path / "corpus" / "good.jsonl", ["1", "2"])
    lines = [b'{"id": "%d", "text": "%s"}\n' % (number, os.urandom(60).hex().encode()) for number in range(5000)]
    whole = gzip.compress(b"".join(lines))
    (tmp_path / "corpus" / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert_says(run(), "cut.jsonl.gz")
    assert len(list((tmp_path / "work" / "receipts").rglob("*.json"))) == 1


def test_documents_that_are_bad_do_not_stop_the_rest(run: Run, tmp_path: Path) -> None:
    """Broken JSON, invalid UTF-8, null, empty and blank texts and 20 MB of text are rejects with their reasons."""
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", [str(number) for number in range(10)])
    bad = [
        b"{broken",
        b'{"id": "u", "text": "\xff\xfe"}',
        b'{"id": "n", "text": null}',
        b'{"id": "e", "text": ""}',
        b'{"id": "w", "text": "  "}',
        b'{"id": "big", "text": "' + b"word " * 4_000_000 + b'"}',
        b'{"id": "3", "text": "an id that was there before"}',
    ]
    path.write_bytes(path.read_bytes() + b"\n".join(bad) + b"\n")
    result = run(**{"max-reject-fraction": "0.5"})
    assert result.exit_code == 0, result.output
    assert "repeat the id" in result.output
    with duckdb.connect(str(tmp_path / "scores.duckdb"), read_only=True) as connection:
        reasons = connection.execute("select reason, object_uri, detail from scores_rejects order by reason").fetchall()
        (rows,) = connection.execute("select count(*) from scores").fetchall()
    assert [reason for reason, _, _ in reasons] == [
        "broken_json",
        "empty",
        "invalid_utf8",
        "null",
        "too_large",
        "whitespace",
    ]
    assert all(uri.endswith("a.jsonl") for _, uri, _ in reasons)
    assert "line 11" in reasons[0][2]
    assert rows == (11,)


def test_a_model_that_is_none(run: Run, tmp_path: Path, tiny_model: str) -> None:
    """A folder without a checkpoint, and a checkpoint without labels, are refused before anything is read."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1"])
    (tmp_path / "folder").mkdir()
    assert_says(run(model=str(tmp_path / "folder")), "folder")
    assert_says(run(model=str(tmp_path / "no-folder")), "no-folder")
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    config = json.loads((bare / "config.json").read_text())
    for key in ("id2label", "label2id", "architectures"):
        config.pop(key, None)
    (bare / "config.json").write_text(json.dumps(config))
    assert_says(run(model=str(bare)), "label")


def test_a_warehouse_that_is_down_or_refuses(run: Run, tmp_path: Path, postgresql: str) -> None:
    """Nobody there, no such database, and another schema: each says so before anything is scored, never a password."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1", "2"])
    down = run(warehouse="postgresql://me:hush@127.0.0.1:1/db")
    assert_says(down, "127.0.0.1")
    assert "hush" not in down.output
    assert_says(run(warehouse=postgresql.replace("/postgres?", "/no_such_database?")), "no_such_database")
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("create table scores (document_id varchar, joy varchar)")
    assert_says(run(warehouse=f"duckdb:///{tmp_path}/other.duckdb"), "scores", "joy")
    assert not (tmp_path / "work" / "receipts").exists()


def test_a_work_location_that_cannot_be_written_to(run: Run, tmp_path: Path) -> None:
    """A work location below a file is refused before anything is read."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1"])
    (tmp_path / "file").write_text("")
    assert_says(run(work=str(tmp_path / "file" / "work")), "file")


def test_a_cluster_that_does_not_answer(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address stands in the message."""
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 1)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1"])
    assert_says(run(cluster="tcp://127.0.0.1:1"), "tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"work": None}, "--work"),
        ({"warehouse": "mysql://host/db"}, "mysql"),
        ({"table": "drop table"}, "drop table"),
        ({"workers": "2"}, "workers"),
        ({"keep-column": "text"}, "text"),
    ],
)
def test_arguments_that_break_a_rule(run: Run, values: dict[str, str | None], word: str) -> None:
    """Exit status 2, before anything is touched."""
    assert_says(run(**values), word, status=2)
