"""No secret that a user types or sets reaches a message, a log, a file, a table, a page or Airflow's database.

Each secret holds a mark, which survives every encoding; so a search for marks finds it in any spelling.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner
from distributed import Client

from corpuscore.cli import main
from infra.stack.home import CHECKOUT
from tests.servers.jobs import write_jsonl
from tests.servers.postgresql import Login, new_table, run

MARK = "Zq7mark"
#: What a password may hold, unescaped, where a URL ends, splits or joins.
UGLY = [
    MARK,
    f"{MARK}/x",
    f"x/{MARK}",
    f"x?{MARK}",
    f"x#{MARK}",
    f"x@{MARK}",
    f"x:{MARK}",
    f"x&{MARK}=1",
    f"x {MARK}%2",
]
WAREHOUSES = [
    *(f"postgresql://me:{secret}@localhost:1/db" for secret in UGLY),
    *(f"postgresql://me:{quote(secret, safe='')}@localhost:1/db" for secret in UGLY),
    f"postgres://me:{MARK}@localhost/db",
    f"postgresql+psycopg2://me:{MARK}@localhost/db",
    f"jdbc:postgresql://me:{MARK}@localhost/db",
    f"postgresql:me:{MARK}@localhost/db",
    f"host=localhost user=me password={MARK}",
    f"me:{MARK}@localhost",
    f"postgresql://me%3A{MARK}@localhost:1/db",
    f"postgresql://me@localhost:1/db?password={MARK}",
    f"postgresql://me@localhost:1/db?sslpassword={MARK}&sslmode=disable",
    f"postgresql://me@localhost:1/db?pass%77ord={MARK}",
    f"postgresql://me@localhost:1/db?options=-c%20my.password%3D{MARK}",
    f"postgresql://me@localhost:1/db?no_such_option=1&password={MARK}",
    f"duckdb:///file.duckdb?token={MARK}",
    f"duckdb://me:{MARK}@host/file.duckdb",
]
LOCATIONS = [
    f"https://me:{MARK}@localhost:1/c.csv",
    f"s3://AKIA:{MARK}@bucket/c/",
    f"http://h/c.csv?X-Amz-Signature={MARK}",
]
ARGUMENTS: list[list[str]] = [
    *(["--warehouse", url] for url in WAREHOUSES),
    *(["--corpus", uri] for uri in LOCATIONS),
    *(["--corpus", uri, "--corpus", uri] for uri in LOCATIONS[:1]),
    *(["--work", uri] for uri in LOCATIONS),
    *(["--model", uri] for uri in LOCATIONS),
    ["--cluster", f"tcp://me:{MARK}@localhost:1"],
    ["--cluster", f"http://me:{MARK}@localhost:1"],
    ["--table", f"postgresql://me:{MARK}@localhost/db"],
    ["--workers", f"postgresql://me:{MARK}@localhost/db"],
    ["--device", f"postgresql://me:{MARK}@localhost/db"],
    [f"--device=postgresql://me:{MARK}@localhost/db"],
    [f"postgresql://me:{MARK}@localhost/db"],
    ["--json", f"postgresql://me:{MARK}/x@localhost/db"],
    ["--run", f"s3://AKIA:{MARK}@bucket/work/runs/1", "--warehouse", "duckdb:///x"],
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse is not waited for."""
    monkeypatch.setattr("corpuscore.stages.planning._PATIENCE_SECONDS", 0.0)


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize("wrong", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_no_argument_is_shown_with_its_secret(
    wrong: list[str], verb: str, quick: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that fails for its arguments, or for a server that is not there, shows and writes none of them."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1"])
    usual = {
        "--corpus": str(tmp_path / "corpus"),
        "--work": str(tmp_path / "work"),
        "--warehouse": f"duckdb:///{tmp_path}/scores.duckdb",
    }
    given = [part for flag, value in usual.items() if flag not in wrong for part in (flag, value)]
    caplog.set_level(logging.DEBUG)
    result = CliRunner().invoke(main, ["--verbose", verb, *given, *wrong])
    said = result.output + caplog.text + repr(result.exception) + repr(result.exc_info)
    assert marks(said) == []
    assert marks_in(tmp_path) == []
    if verb == "run":
        assert result.exit_code != 0
        assert "Traceback" not in result.output


@pytest.mark.parametrize("verb", ["status", "report"])
@pytest.mark.parametrize("uri", [*LOCATIONS, f"s3://AKIA:{MARK}@bucket/work/runs/abc", f"postgresql://me:{MARK}@h/db"])
def test_no_address_of_a_run_is_shown_with_its_secret(uri: str, verb: str) -> None:
    """A run that is looked for where no run can be is an error without the address's secret."""
    result = CliRunner().invoke(main, [verb, uri])
    assert result.exit_code in (1, 2)
    assert marks(result.output + repr(result.exception)) == []


def marks(text: str) -> list[str]:
    """Where a secret shows in a text, with what is around it."""
    return [text[max(0, found.start() - 80) : found.end() + 40] for found in re.finditer(MARK, text)]


def marks_in(folder: Path) -> list[str]:
    """Files with a secret in their names or bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if MARK in path.name or MARK.encode() in path.read_bytes()]


@pytest.fixture
def environment() -> dict[str, str]:
    """Secrets of other things that a process has in its environment."""
    return {**os.environ, "AWS_SECRET_ACCESS_KEY": f"{MARK}/aws", "AWS_SESSION_TOKEN": f"{MARK}/token"}


def command(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run the command line; its exit status, and all that it says."""
    program = [sys.executable, "-m", "corpuscore", "--verbose", *arguments]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def password_login(postgresql_login: Login) -> Iterator[Login]:
    """A role whose password is as ugly as can be, and which may make tables."""
    secret = f"{MARK}/&?#:@% é"
    run(postgresql_login.admin, f"ALTER ROLE {postgresql_login.role} PASSWORD '{secret}'")
    run(postgresql_login.admin, f"GRANT CREATE ON SCHEMA public TO {postgresql_login.role}")
    yield Login(postgresql_login.admin, postgresql_login.role, secret)
    run(postgresql_login.admin, f"REVOKE CREATE ON SCHEMA public FROM {postgresql_login.role}")


@pytest.mark.timeout(600)
def test_a_run_leaves_its_password_nowhere(
    password_login: Login, environment: dict[str, str], tmp_path: Path, tiny_model: str, dask_address: str
) -> None:
    """From plan to report, with the password in the URL and in PGPASSWORD: output, files, tables and Dask's pages."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1", "2", "3"])
    table = new_table()
    usual = ["--corpus", str(tmp_path / "corpus"), "--id-column", "id", "--model", tiny_model, "--device", "cpu"]
    usual += ["--work", str(tmp_path / "work"), "--cluster", dask_address, "--table", table]
    status, said = command(environment, "run", *usual, "--warehouse", password_login.url)
    assert status == 0, said
    (run_uri,) = (tmp_path / "work" / "runs").iterdir()
    said += command({**environment, "PGPASSWORD": password_login.password}, "report", str(run_uri))[1]
    wrong = quote(f"{MARK} wrong", safe="")
    refused = password_login.url.replace(quote(password_login.password, safe=""), wrong)
    assert refused != password_login.url
    quickly = {**environment, "DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE": "0s"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url, words in ((refused, "PGPASSWORD"), (f"postgresql://me:{wrong}@127.0.0.1:{port}/db", str(port))):
        for verb in ("validate", "load"):
            status, failed = command(quickly, verb, "--run", str(run_uri), "--warehouse", url)
            assert status == 1
            assert words in failed
            said += failed
    assert marks(said) == []
    assert len(list((run_uri / "reports").glob("*.html"))) == 1
    assert marks_in(tmp_path) == []
    for suffix in ("", "_rejects", "_ledger", "_runs"):
        assert marks(str(run(password_login.admin, f"SELECT t::text FROM {table}{suffix} AS t"))) == []
    assert marks("".join(pages(dask_address))) == []


def pages(address: str) -> list[str]:
    """What a Dask scheduler tells a browser: its pages of workers, tasks and logs, and its metrics."""
    with Client(address) as client:
        parts = urlsplit(client.dashboard_link)
        workers = [quote(name, safe="") for name in client.scheduler_info()["workers"]]
        texts = [str(client.get_worker_logs()), str(client.get_scheduler_logs()), str(client.story())]
    paths = [f"/info/main/{name}.html" for name in ("workers", "exceptions", "logs")] + [
        "/metrics",
        "/json/identity.json",
    ]
    paths += [f"/info/{kind}/{name}.html" for name in workers for kind in ("worker", "logs", "call-stacks")]
    for path in paths:
        with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}{path}", timeout=60) as answer:  # noqa: S310
            texts.append(answer.read().decode())
    return texts


@pytest.mark.airflow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fails", [False, True])
def test_a_dag_run_leaves_its_password_nowhere(
    password_login: Login, environment: dict[str, str], tmp_path: Path, tiny_model: str, dask_address: str, fails: bool
) -> None:
    """A connection's password, right or wrong, is in no log, no XCom and no byte of Airflow's database."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", ["1", "2", "3"])
    password = f"{password_login.password} wrong" if fails else password_login.password
    parts = urlsplit(password_login.url)
    connection = {
        "conn_type": "postgres",
        "host": password_login.folder,
        "login": password_login.role,
        "password": password,
        "schema": parts.path.lstrip("/"),
    }
    airflow = {
        **environment,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW_CONN_DWH": json.dumps(connection),
    }
    values = {
        "corpus": [str(tmp_path / "corpus")],
        "id_columns": ["id"],
        "model": tiny_model,
        "work": str(tmp_path / "work"),
        "warehouse": "conn://dwh",
        "table": new_table(),
        "cluster": dask_address,
    }
    program = str(Path(sys.executable).parent / "airflow")
    said = ""
    for arguments in (["db", "migrate"], ["dags", "test", "score_corpus", "--conf", json.dumps(values)]):
        done = subprocess.run([program, *arguments], env=airflow, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
    assert ("state=failed" if fails else "state=success") in said, said[-4000:]
    assert marks(said) == []
    assert (tmp_path / "airflow" / "airflow.db").exists()
    assert marks_in(tmp_path) == []
