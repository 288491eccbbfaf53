"""Tables and data sets as corpora: what their own libraries read, from the objects of their present snapshot."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from corpuscore.corpus import confirm_gone, find_departed, list_objects, list_versions, split
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.reading import rows

READING = ReadOptions(keep_columns=("lang",))
SCHEMA = pa.schema([("text", pa.string()), ("lang", pa.string())])


def _table(*texts: str, lang: str | None = "en") -> pa.Table:
    return pa.table({"text": list(texts), "lang": [lang] * len(texts)}, SCHEMA)


def _read(*corpus: str, reading: ReadOptions = READING) -> list[tuple[str, Any]]:
    """(text, lang) of all documents, sorted."""
    found = rows(split(list_objects(corpus), 1000, reading), reading)
    return sorted((row["text"], row.get("lang")) for row in found)


def _rows(table: pa.Table) -> list[tuple[str, Any]]:
    return sorted((row["text"], row["lang"]) for row in table.to_pylist())


@pytest.fixture(params=[None, ["lang"]])
def delta(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A Delta table of three versions, plain or partitioned, whose files hold a row more than it does."""
    folder = str(tmp_path / "a table")
    write_deltalake(folder, _table("a", "b"), partition_by=request.param)
    write_deltalake(folder, _table("c", lang="d e/f"), mode="append")
    write_deltalake(folder, _table("d", lang=None), mode="append")
    DeltaTable(folder).delete("text = 'a'")
    return folder


def test_a_delta_table_is_read_as_of_its_newest_version(delta: str, tmp_path: Path) -> None:
    """Just its rows, partition columns too, with the folder named with a slash or without; all of them frozen."""
    expected = _rows(DeltaTable(delta).to_pyarrow_table())
    assert [text for text, _ in expected] == ["b", "c", "d"]
    assert _read(delta) == _read(f"{delta}/") == _read(f"file://{delta}") == expected
    before = list_objects([delta])
    assert list_versions([delta]) == {item.uri: item.etag for item in before}
    write_deltalake(delta, _table("e"), mode="append")
    assert set(before) < set(list_objects([delta]))


def test_a_file_that_a_delta_table_left_behind_has_departed(delta: str) -> None:
    """Though it lies there until it is cleared away."""
    corpus = [f"file://{delta}"]
    before = [item.uri for item in list_objects(corpus)]
    DeltaTable(delta).delete("text = 'b'")
    after = {item.uri for item in list_objects(corpus)}
    departed = find_departed(before, corpus, after)
    assert departed == confirm_gone(departed, corpus) == [uri for uri in before if uri not in after] != []
    assert all(Path(uri.removeprefix("file://")).exists() for uri in departed)


def test_tables_in_a_bucket_are_read(s3: str, tmp_path: Path) -> None:
    """With the endpoint and credentials of the AWS environment, as everything else there."""
    write_deltalake(f"{s3}/t", _table("a"), storage_options={"AWS_ALLOW_HTTP": "true"})
    assert _read(f"{s3}/t") == [("a", "en")]
    properties = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO", "s3.endpoint": os.environ["AWS_ENDPOINT_URL"]}
    catalog = SqlCatalog("there", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"{s3}/w", **properties)
    catalog.create_namespace("ns")
    table = catalog.create_table("ns.texts", schema=SCHEMA)
    table.append(_table("b"))
    assert _read(table.metadata_location) == [("b", "en")]
    catalog.close()


def test_files_of_a_delta_table_by_themselves_are_told_of(delta: str, caplog: pytest.LogCaptureFixture) -> None:
    """By a pattern, or in a folder above, they are read as they are, with a warning."""
    with caplog.at_level(logging.WARNING, "corpuscore"):
        assert len(_read(f"{delta}/**/*.parquet", reading=ReadOptions())) > 3
        assert len(_read(str(Path(delta).parent), reading=ReadOptions())) > 3
    assert caplog.text.count("which are read as they are, with rows that were deleted or replaced") == 2


def test_a_delta_table_needs_its_extra(delta: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are not read in its place without a word."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(CorpusError, match=r"is a Delta table.*pip install 'corpuscore\[delta\]'"):
        list_objects([delta])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metaData": {"configuration": {"delta.columnMapping.mode": "name"}}}, "maps its columns by name"),
        ({"protocol": {"minReaderVersion": 3, "readerFeatures": ["variantType"]}}, "variantType"),
        ({"add": {"path": "gone.parquet"}}, "1 files of its snapshot are gone"),
    ],
)
def test_what_is_not_understood_of_a_delta_table_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """Columns that are called otherwise in the files, features of newer readers, files that are gone."""
    folder = tmp_path / "t"
    write_deltalake(str(folder), _table("a"))
    log = folder / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        for name, values in change.items():
            if name in action:
                action[name].update(values)
                if name == "protocol":
                    action[name].update({"minWriterVersion": 7, "writerFeatures": values["readerFeatures"]})
    log.write_text("\n".join(map(json.dumps, actions)))
    with pytest.raises(CorpusError, match=said):
        list_objects([str(folder)])


def test_a_broken_delta_log_is_one_message(tmp_path: Path) -> None:
    """Whatever its reader raises."""
    (tmp_path / "t" / "_delta_log").mkdir(parents=True)
    (tmp_path / "t" / "_delta_log" / f"{0:020}.json").write_text("no log")
    (tmp_path / "t" / "a.parquet").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"The Delta table .* cannot be read"):
        list_objects([str(tmp_path / "t")])


@pytest.fixture
def iceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """A partitioned table of two appends, in a catalog that pyiceberg is configured for."""
    properties = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w", "type": "sql"}
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__URI", properties["uri"])
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", _configuration())
    catalog = SqlCatalog("here", **properties)
    catalog.create_namespace("ns")
    table = catalog.create_table("ns.texts", schema=SCHEMA)
    with table.update_spec() as spec:
        spec.add_identity("lang")
    table.append(_table("a", "b"))
    table.append(_table("c", lang="fr"))
    yield table
    catalog.close()


def _configuration() -> Any:
    from pyiceberg.utils.config import Config

    return Config()


def test_an_iceberg_table_is_read_as_of_its_snapshot(iceberg: Table) -> None:
    """By its catalog and its name, or by its metadata; and what a later snapshot does not name has departed."""
    metadata = iceberg.metadata_location
    assert _read("iceberg://here/ns.texts") == _read(metadata) == _rows(iceberg.scan().to_arrow())
    before = [item.uri for item in list_objects(["iceberg://here/ns.texts"])]
    assert before == [item.uri for item in list_objects([metadata])]
    iceberg.delete("lang = 'fr'")
    corpus = ["iceberg://here/ns.texts"]
    assert _read(*corpus) == [("a", "en"), ("b", "en")]
    after = {item.uri for item in list_objects(corpus)}
    departed = find_departed(before, corpus, after)
    assert departed == confirm_gone(departed, corpus) == [uri for uri in before if uri not in after]
    assert len(departed) == 1


def test_what_is_not_understood_of_an_iceberg_table_is_named(iceberg: Table, tmp_path: Path) -> None:
    """A column that was renamed, its bare folder, a table that is not there."""
    with pytest.raises(CorpusError, match=r"is an Iceberg table.*name its metadata, such as .*metadata.json"):
        list_objects([iceberg.location()])
    with iceberg.update_schema() as schema:
        schema.rename_column("lang", "language")
    with pytest.raises(CorpusError, match="has renamed its column 'lang' to 'language'"):
        list_objects(["iceberg://here/ns.texts"])
    for absent in ("iceberg://here/ns.absent", "iceberg://nowhere/ns.texts", f"{tmp_path}/metadata/x.metadata.json"):
        with pytest.raises(CorpusError, match=r"cannot be read .*a table is iceberg://CATALOG"):
            list_objects([absent])


def _save(folder: Path, *texts: str) -> None:
    """What datasets.Dataset.save_to_disk writes: Arrow streams and descriptions; and what its cache leaves."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(texts):05}.arrow" for number in range(len(texts))]
    for name, text in zip((*names, "cache-1f.arrow"), (*texts, "stale"), strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
            writer.write_table(_table(text))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    """One, or a dictionary of splits: the files that are named, not the descriptions, nor the cache."""
    _save(tmp_path / "one", "a", "b")
    assert _read(str(tmp_path / "one")) == [("a", "en"), ("b", "en")]
    _save(tmp_path / "both" / "train", "c")
    _save(tmp_path / "both" / "test", "d")
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert _read(str(tmp_path / "both")) == [("c", "en"), ("d", "en")]
    assert _read(str(tmp_path / "both" / "train")) == [("c", "en")]
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(CorpusError, match=r"state.json cannot be read: it names data-00001-of-00002.arrow"):
        list_objects([str(tmp_path / "one")])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("configs:\n- config_name: default\n  data_files: data/train-*", ["train"]),
        ("configs:\n- config_name: default\n  data_files:\n  - split: t\n    path: [data/train-*, x/*]",
         ["more", "train"]),
        ("configs:\n- config_name: a\n  data_files: x/*\n- config_name: b\n  default: true\n  data_files: data/*",
         ["test", "train"]),
        ("configs:\n- config_name: only\n  data_files:\n    train: data/{train,nothing}-*", ["train"]),
        ("dataset_info:\n  splits: []", ["more", "test", "train"]),
    ],
)  # fmt: skip
def test_a_repository_of_a_data_set_is_read(tmp_path: Path, head: str, expected: list[str]) -> None:
    """The files of its default configuration, as the head of its README.md says; none of what lies beside."""
    _repository(tmp_path, head)
    assert [text for text, _ in _read(str(tmp_path))] == expected


def test_a_repository_without_a_default_is_refused(tmp_path: Path) -> None:
    """With the names of its configurations; also where its patterns match nothing."""
    _repository(tmp_path, "configs:\n- config_name: a\n  data_files: x/*\n- config_name: b\n  data_files: data/*")
    with pytest.raises(CorpusError, match=r"has the configurations a, b, none of them the default"):
        list_objects([str(tmp_path)])
    _repository(tmp_path, "configs:\n- config_name: default\n  data_files: nothing/*")
    with pytest.raises(CorpusError, match=r"its patterns nothing/\* match no file"):
        list_objects([str(tmp_path)])


def _repository(folder: Path, head: str) -> None:
    import pyarrow.parquet as pq

    for name, text in (("data/train-0.parquet", "train"), ("data/test-0.parquet", "test"), ("x/more.parquet", "more")):
        (folder / name).parent.mkdir(exist_ok=True)
        pq.write_table(_table(text), folder / name)
    (folder / "README.md").write_text(f"---\nlicense: mit\n{head}\n---\n# A data set\n")
    (folder / "LICENSE").write_text("x")
