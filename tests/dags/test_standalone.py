"""The DAG on a real Airflow: scheduler, triggerer, API server, deferral; S3 and PostgreSQL as real servers.

Real corpora, from S3 into both warehouses, want CORPUSCORE_DATA.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import adbc_driver_postgresql.dbapi as postgres
import orjson
import pytest

from corpuscore.storage import Store, filesystem
from corpuscore.warehouse import open_warehouse
from infra.stack.airflow import DAG, Airflow
from tests.scoring.checkpoints import SAMPLE
from tests.servers.airflow import Stack

DATA = os.environ.get("CORPUSCORE_DATA")
pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

CORPORA: dict[str, tuple[int, dict[str, Any]]] = {
    "novels.parquet": (11_771, {"id_columns": ["book", "paragraph"], "keep_columns": ["book"]}),
    "reddit-10k.csv.gz": (10_000, {"id_columns": ["id"], "text_column": "body", "keep_columns": ["subreddit"]}),
}

OBJECTS, EACH = 20, 25
WORDS = " ".join(SAMPLE[:5]).split()


@pytest.fixture(scope="module")
def warehouse(stack: Stack, postgresql: str) -> str:
    """An Airflow connection to the session's PostgreSQL."""
    parts = urlsplit(postgresql)
    fields = {
        "connection_id": "warehouse",
        "conn_type": "corpuscore_warehouse",
        "host": parse_qs(parts.query)["host"][0],
        "login": parts.username,
        "password": "s3cret/pass",
        "schema": parts.path.strip("/"),
    }
    stack.api.post("/api/v2/connections", fields)
    return "conn://warehouse"


@pytest.fixture
def conf(stack: Stack, s3: str, warehouse: str, tiny_model: str) -> dict[str, Any]:
    """Params of a run from a bucket of 20 objects into a table of its own."""
    store = Store(f"{s3}/corpus")
    for number in range(OBJECTS):
        lines = [orjson.dumps({"id": f"{number}-{at}", "text": _text(number, at)}) for at in range(EACH)]
        store.write(f"{number:02}.jsonl", b"\n".join(lines))
    return {
        "corpus": [f"{s3}/corpus/"],
        "id_columns": ["id"],
        "keep_columns": None,  # what the form sends for an empty field
        "model": tiny_model,
        "work": f"{s3}/work/",
        "warehouse": warehouse,
        "table": f"scores_{uuid.uuid4().hex[:8]}",
    }


def _text(number: int, at: int) -> str:
    """Words that the tiny model knows, so that it tells texts apart."""
    return " ".join(WORDS[(7 * number + 3 * at + k * at) % len(WORDS)] for k in range(3 + at % 5))


def _counts(postgresql: str, table: str) -> tuple[int, int]:
    with postgres.connect(postgresql) as connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*), count(distinct document_id) from {table}")
        return tuple(cursor.fetchone())


def test_from_a_bucket_into_postgresql(stack: Stack, conf: dict[str, Any], postgresql: str) -> None:
    """Deferred, with progress and a link; rows exactly once; an asset event; a second run finds nothing to do."""
    run_id = stack.run(conf)
    assert stack.api.run_state(run_id) == "success", stack.states(run_id)
    assert stack.states(run_id)["score"] == ["success"] * 2
    assert _counts(postgresql, conf["table"]) == (OBJECTS * EACH, OBJECTS * EACH)

    log = stack.log(run_id, "score")
    assert "Pausing task as DEFERRED" in log
    assert "16 of 16 partitions, 400 documents" in log
    links = f"/api/v2/dags/{DAG}/dagRuns/{run_id.replace('+', '%2B')}/taskInstances/score/links?map_index=0"
    assert "/status" in stack.api.get(links)["extra_links"]["Dask dashboard"]
    (event,) = _asset_events(stack.api, conf["table"])
    assert event["extra"]["rows_loaded"] == OBJECTS * EACH
    assert "s3cret" not in orjson.dumps([event, stack.api.tasks(run_id)]).decode() + log

    again = stack.run(conf)
    assert stack.api.run_state(again) == "success", stack.states(again)
    assert stack.states(again)["score"] == ["skipped"]
    assert stack.api.xcom(again, "report")["nothing_new"]
    assert "nothing to do" in stack.log(again, "report")
    assert len(_asset_events(stack.api, conf["table"])) == 1
    assert _counts(postgresql, conf["table"]) == (OBJECTS * EACH, OBJECTS * EACH)


def _asset_events(api: Airflow, table: str) -> list[dict[str, Any]]:
    events = api.get("/api/v2/assets/events?limit=1000")["asset_events"]
    return [event for event in events if event["uri"].endswith(f"/{table}")]


def test_a_permanent_error_fails_at_once(stack: Stack, conf: dict[str, Any]) -> None:
    """No retry for a model that isn't one; the log says what to do, in lines and not in a traceback."""
    run_id = stack.run({**conf, "model": "/no/such/model"})
    assert stack.api.run_state(run_id) == "failed"
    plan = stack.task(run_id, "plan")
    assert (plan["state"], plan["try_number"]) == ("failed", 1)
    log = stack.log(run_id, "plan")
    assert "/no/such/model" in log
    assert "Next: " in log
    assert "Traceback" not in log
    assert stack.states(run_id)["report"] == ["upstream_failed"]


def test_clearing_a_deferred_task_loses_and_doubles_nothing(
    stack: Stack, conf: dict[str, Any], postgresql: str
) -> None:
    """The first attempt's end must not take the second one's work with it."""
    run_id = stack.api.trigger(conf)
    while "deferred" not in stack.states(run_id)["score"]:
        assert stack.api.run_state(run_id) in ("queued", "running"), stack.states(run_id)
        time.sleep(0.2)
    stack.clear(run_id, "score")
    assert stack.wait(run_id) == "success", stack.states(run_id)
    assert _counts(postgresql, conf["table"]) == (OBJECTS * EACH, OBJECTS * EACH)


def test_the_form_refuses_bad_values(stack: Stack, conf: dict[str, Any]) -> None:
    """REST checks the params against the form before a run exists."""
    with pytest.raises(Exception, match="400.*max_tokens|400.*minimum"):
        stack.api.trigger({**conf, "max_tokens": 1})


@pytest.mark.skipif(not DATA, reason="CORPUSCORE_DATA is unset: it names the folder of the real corpora")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "kind"), [("novels.parquet", "duckdb"), ("reddit-10k.csv.gz", "postgresql")])
def test_a_real_corpus_lands_once(name: str, kind: str, stack: Stack, s3: str, postgresql: str, tmp_path: Path) -> None:
    """Every row is in the table after the first run; the second one finds nothing to do."""
    rows, columns = CORPORA[name]
    store, path = filesystem(f"{s3}/corpus/{name}")
    store.put_file(str(Path(DATA or "", name)), path)
    warehouse = postgresql if kind == "postgresql" else f"duckdb:///{tmp_path}/scores.duckdb"
    conf = {
        "corpus": [f"{s3}/corpus/"],
        "work": f"{s3}/work/",
        "warehouse": warehouse,
        "table": f"scores_{uuid.uuid4().hex[:8]}",
        "partition_rows": 2000,
        **columns,
    }
    for nothing_new in (False, True):
        run_id = stack.run(conf)
        assert stack.api.run_state(run_id) == "success", stack.states(run_id)
        assert stack.api.xcom(run_id, "report")["nothing_new"] is nothing_new
        with open_warehouse(warehouse, conf["table"]) as target:
            found = target.summary(["joy"])
        assert found.scored + found.rejected == rows
