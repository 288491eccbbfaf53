"""Real corpora through the DAG on a real Airflow, from S3 into both warehouses, twice. Wants CORPUSCORE_DATA."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from corpuscore.storage import filesystem
from corpuscore.warehouse import open_warehouse
from tests.servers.airflow import Stack

DATA = os.environ.get("CORPUSCORE_DATA")
pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not DATA, reason="CORPUSCORE_DATA is unset: it names the folder of the real corpora"),
    pytest.mark.timeout(1200),
]

CORPORA: dict[str, tuple[int, dict[str, Any]]] = {
    "novels.parquet": (11_771, {"id_columns": ["book", "paragraph"], "keep_columns": ["book"]}),
    "reddit-10k.csv.gz": (10_000, {"id_columns": ["id"], "text_column": "body", "keep_columns": ["subreddit"]}),
}


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
