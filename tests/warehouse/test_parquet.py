"""A folder of Parquet files, here and in S3, as others read it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from corpuscore.errors import WarehouseError
from corpuscore.options import TableOptions
from corpuscore.warehouse import Counts, LoadSummary, Warehouse, load_parts, open_warehouse
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened

PAGE = Path(__file__).parents[2] / "docs" / "warehouses.md"


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts into a folder of the test."""
    (tmp_path / "parts").mkdir()
    return PartMaker(tmp_path / "parts")


def load(warehouse: Warehouse, parts: Any, **more: Any) -> LoadSummary:
    """Load parts with the usual columns."""
    return load_parts(warehouse, "run", "model", LABELS, KEPT, parts, opened, **{"planned_at": PLANNED_AT, **more})


def files(folder: Path, kind: str) -> list[Path]:
    """Files of a table, of a kind."""
    return sorted((folder / "lake" / "scores" / kind).iterdir()) if (folder / "lake" / "scores" / kind).exists() else []


def test_a_bucket(s3: str, maker: PartMaker) -> None:
    """Loading, superseding and asking, in S3: two writers who each see what the other has done."""
    url = f"parquet+{s3}/lake"
    with open_warehouse(url, "analytics.scores") as first, open_warehouse(url, "analytics.scores") as second:
        first.prepare(LABELS, KEPT)
        second.prepare(LABELS, KEPT)
        assert load(first, [maker.checked("w1", "a", 5, 2), maker.checked("w2", "b", 3)]).rows_loaded == 8
        assert load(second, [maker.checked("w3", "a", 4, 1)]).rows_superseded == 7
        assert first.count(["w1", "w2", "w3"]) == Counts(7, 1)
        assert first.summary(LABELS).reasons == {"null": 1}


def test_a_reader_does_as_the_page_says(tmp_path: Path, maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and DuckDB find the rows that count, with halves of floats as floats, and not those that went."""
    with open_warehouse(f"parquet:///{tmp_path}/FOLDER", "TABLE", options=TableOptions(score_type="float16")) as target:
        target.prepare(LABELS, KEPT)
        load(target, [maker.checked("w1", "a", 5, 2)])
        load(target, [maker.checked("w2", "a", 4, 1), maker.checked("w3", "b", 2)])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    [recipe] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(recipe, names)  # noqa: S102  # as a reader would
    assert names["scores"].count_rows() == 6
    with duckdb.connect() as connection:
        sql = "SELECT count(*), max(joy) <= 1 FROM read_parquet($1)"
        assert connection.execute(sql, [names["scores"].files]).fetchall() == [(6, True)]


def test_what_has_not_counted_for_a_day_is_swept(tmp_path: Path, maker: PartMaker) -> None:
    """Superseded files and those of loads that did not come to their commit; younger ones stay for their readers."""
    url = f"parquet:///{tmp_path}/lake"
    with open_warehouse(url) as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, [maker.checked("w1", "a", 5, 2), maker.checked("w2", "b", 1)])
        load(warehouse, [maker.checked("w3", "a", 4)])
        warehouse.prepare(LABELS, KEPT)
        assert (len(files(tmp_path, "scores")), len(files(tmp_path, "rejects"))) == (3, 1)
        for path in (tmp_path / "lake").rglob("*.parquet"):
            os.utime(path, (0, 0))
        warehouse.prepare(LABELS, KEPT)
        left = {path.name[:2] for path in files(tmp_path, "scores")}
        assert (left, files(tmp_path, "rejects"), len(files(tmp_path, "ledger"))) == ({"w2", "w3"}, [], 1)
        assert warehouse.count(["w1", "w2", "w3"]) == Counts(5, 0)


def test_files_of_a_work_id_hold_its_rows_only(tmp_path: Path, maker: PartMaker) -> None:
    """And none is there for no rows."""
    with open_warehouse(f"parquet:///{tmp_path}/lake") as warehouse:
        warehouse.prepare(LABELS, KEPT)
        load(warehouse, [maker.checked("w1", "a", 0, 3), maker.checked("w2", "b", 2)])
    [scores], [rejects] = files(tmp_path, "scores"), files(tmp_path, "rejects")
    assert set(pq.read_table(scores)["work_id"].to_pylist()) == {"w2"}
    assert set(pq.read_table(rejects)["work_id"].to_pylist()) == {"w1"}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"format": 2}'])
def test_a_document_that_is_none_of_ours(tmp_path: Path, body: bytes) -> None:
    """It is named, and nothing is put in its place."""
    path = tmp_path / "lake" / "scores" / "current.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    with (
        open_warehouse(f"parquet:///{tmp_path}/lake") as warehouse,
        pytest.raises(WarehouseError, match=r"current\.json .*format 1"),
    ):
        warehouse.prepare(LABELS, KEPT)
    assert path.read_bytes() == body


def test_the_document_is_for_people_too(tmp_path: Path) -> None:
    """It says which columns there are, and what the list of labels holds."""
    options = TableOptions(threshold=0.5, labels=("joy",))
    with open_warehouse(f"parquet:///{tmp_path}/lake", options=options) as warehouse:
        warehouse.prepare(LABELS, KEPT)
    found = json.loads((tmp_path / "lake" / "scores" / "current.json").read_text())
    assert found["listed"] == "labels with a score of at least 0.5"
    assert (found["scores"]["joy"], found["scores"]["labels"]) == ("float", "list<item: string>")


@pytest.mark.parametrize(
    "url", ["parquet://", "parquet:///", "parquet://host/x", "parquet+s3:///x", "parquet+gs://b/x", "parquet:///x?y=1"]
)
def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    """The message says how a folder is named."""
    with pytest.raises(WarehouseError, match="names no folder for Parquet files"):
        open_warehouse(url)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in its place is a refusal of the warehouse, with the store's words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="file"), open_warehouse(f"parquet:///{tmp_path}/file") as warehouse:
        warehouse.prepare(LABELS, KEPT)
