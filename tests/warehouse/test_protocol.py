from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from corpuscore import stages
from corpuscore.errors import JobError
from corpuscore.warehouse import backends, kind_of, open_warehouse
from corpuscore.warehouse.retries import RetryingWarehouse
from tests.servers.jobs import MakeJob, write_jsonl


def test_a_new_kind_is_one_file(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file among the backends is all that a job, its plan and opening need to know a warehouse."""
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    (tmp_path / "noted.py").write_text("def connect(url, table, options):\n    return url, table\n")
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1"])
    assert kind_of("noted://here") == "noted"
    assert stages.plan(make_job(warehouse="noted://here")).partitions == 1
    opened = open_warehouse("noted://here")
    assert isinstance(opened, RetryingWarehouse)
    inner: object = opened.inner
    assert inner == ("noted://here", "scores")


@pytest.mark.parametrize(
    "url", ["oracle://host/db", "scores.duckdb", "", "os:path", "duckdb", "duckdb+s3://bucket/file"]
)
def test_an_unknown_kind_names_those_that_are_known(url: str, make_job: MakeJob) -> None:
    """The message lists the kinds and shows a URL, before anything is read or written."""
    with pytest.raises(JobError, match="duckdb, iceberg, parquet, postgresql"):
        open_warehouse(url)
    with pytest.raises(JobError, match="duckdb, iceberg, parquet, postgresql"):
        stages.plan(make_job(warehouse=url))


@pytest.mark.parametrize(
    ("driver", "url", "extra"),
    [
        ("adbc_driver_postgresql", "postgresql://host/db", "corpuscore[postgresql]"),
        ("duckdb", "duckdb:///file", "corpuscore[duckdb]"),
        ("pyiceberg", "iceberg://catalog", "corpuscore[iceberg]"),
    ],
)
def test_a_missing_driver_names_what_to_install(driver: str, url: str, extra: str) -> None:
    """Without the driver the package imports, and opening says what is missing."""
    script = textwrap.dedent(
        f"""
        import sys
        sys.modules[{driver!r}] = None
        from corpuscore.errors import WarehouseError
        from corpuscore.warehouse import open_warehouse
        try:
            open_warehouse({url!r})
        except WarehouseError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert extra in done.stdout


def test_no_driver_is_imported_before_it_is_needed() -> None:
    """An Airflow image needs no database driver."""
    script = "import sys, corpuscore.warehouse, corpuscore.validation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"duckdb", "adbc_driver_postgresql", "pyiceberg", "torch"} & set(done.stdout.split())
