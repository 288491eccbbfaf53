"""Real corpora through a real S3 server into both warehouses, twice, with exact counts. Wants CORPUSCORE_DATA."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corpuscore.cli import main
from corpuscore.storage import filesystem
from corpuscore.warehouse import open_warehouse

DATA = os.environ.get("CORPUSCORE_DATA")
pytestmark = [
    pytest.mark.skipif(not DATA, reason="CORPUSCORE_DATA is unset: it names the folder of the real corpora"),
    pytest.mark.timeout(1200),
]

CORPORA = {
    "novels.parquet": (11_771, ["--id-column", "book", "--id-column", "paragraph", "--keep-column", "book"]),
    "reddit-10k.csv.gz": (10_000, ["--id-column", "id", "--text-column", "body", "--keep-column", "subreddit"]),
}


def _run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["run", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize(("name", "kind"), [("novels.parquet", "duckdb"), ("reddit-10k.csv.gz", "postgresql")])
def test_a_real_corpus_lands_once(
    name: str, kind: str, s3: str, dask_address: str, postgresql: str, tmp_path: Path
) -> None:
    """From S3 into the warehouse with the bundled model: every row is there, and the second run is a no-op."""
    rows, columns = CORPORA[name]
    store, path = filesystem(f"{s3}/corpus/{name}")
    store.put_file(str(Path(DATA or "", name)), path)
    warehouse = postgresql if kind == "postgresql" else f"duckdb:///{tmp_path}/scores.duckdb"
    table = f"scores_{uuid.uuid4().hex[:8]}"
    arguments = [
        *("--corpus", f"{s3}/corpus/", "--work", f"{s3}/work", "--device", "cpu", "--cluster", dask_address),
        *("--warehouse", warehouse, "--table", table, "--partition-rows", "2000", *columns),
    ]
    first, second = _run(*arguments), _run(*arguments)
    assert (first["rows"], first["rows_in_table"] + first["rejects_in_table"]) == (rows, rows)
    assert first["rows_loaded"] + first["rejects_loaded"] == rows
    assert second["nothing_new"]
    assert second["rows_in_table"] == first["rows_in_table"]
    with open_warehouse(warehouse, table) as target:
        assert target.summary(["joy"]).scored == first["scored"]
