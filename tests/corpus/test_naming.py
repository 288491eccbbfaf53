"""How columns are named: by paths, by folders, under other names, in templates; in every format that has them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.corpus import CorpusObject, list_objects, split
from corpuscore.corpus.parquet import ParquetDocuments, open_parquet
from corpuscore.errors import CorpusError, JobError
from corpuscore.job import Job
from corpuscore.naming import HIVE_NULL, column_of, folder_values, template_of
from corpuscore.oddities import Oddities
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, rows, whole

JOB: dict[str, Any] = {"corpus": ["c"], "work": "w", "warehouse": "duckdb:///f"}


def write(folder: Path, name: str, records: list[dict[str, Any]], kind: pa.Schema | None = None) -> CorpusObject:
    """The same records in the format that the name says; text has only their texts."""
    if name.endswith(".parquet"):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(records, kind), sink)
        body = sink.getvalue()
    elif name.endswith(".csv"):
        lines = [list(records[0]), *([str(value) for value in record.values()] for record in records)]
        body = "".join(",".join(line) + "\n" for line in lines).encode()
    elif name.endswith(".txt"):
        body = "\n\n".join(record["text"] for record in records).encode()
    else:
        body = "".join(json.dumps(record) + "\n" for record in records).encode()
    return put(folder, name, body)


FOLDERS = "year=2024/day%20part=a%2Fb/lang=__HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv", "txt"])
def test_folders_are_columns(tmp_path: Path, format: str) -> None:
    """Kept and in ids, percent-decoded, null by Hive's own word; what the object has itself wins."""
    item = write(tmp_path, f"{FOLDERS}/part-0.{format}", [{"text": "a", "own": "x"}, {"text": "b", "own": "y"}])
    reading = ReadOptions(id_columns=("year", "day part"), keep_columns=("year", "lang", "day part=part"))
    found = [row for partition in split([item], 10, reading) for row in rows([partition], reading)]
    assert [(row["document_id"], row["year"], row["lang"], row["part"]) for row in found] == [
        ("2024/a/b", "2024", None, "a/b")
    ] * 2
    assert [row["reason"] for row in rows([whole(item)], ReadOptions(id_columns=("lang",)))] == ["null_id"] * 2
    if format != "txt":
        other = write(tmp_path, f"own=z/part-0.{format}", [{"text": "a", "own": "x"}])
        assert rows([whole(other)], ReadOptions(keep_columns=("own",)))[0]["own"] == "x"


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=3))
def test_any_folders_are_read_back(values: dict[str, str]) -> None:
    """Percent-encoded, as Arrow and Spark name them."""
    try:
        path = "/".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in values.items())
    except UnicodeEncodeError:
        return
    assert folder_values(f"file:///c/{path}/x=y.csv") == values


def test_only_folders_are_columns() -> None:
    """Not the object's own name, and no key without a name; the innermost of two counts."""
    assert folder_values("s3://b/a=1/=2/c/a=3/d=4.csv") == {"a": "3"}
    assert folder_values(f"s3://b/a={HIVE_NULL}/b=/x.csv") == {"a": None, "b": ""}


DEEP = {"id": {"n": 7}, "message": {"body": "inner", "from": {"name": "Ann"}}, "message.from": {"name": "literal"}}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_path_leads_inside(tmp_path: Path, format: str) -> None:
    """To texts, ids and kept values; a column that is literally so called wins, also on the way."""
    item = write(tmp_path, f"x.{format}", [{**DEEP, "text": "t"}])
    reading = ReadOptions("message.body", ("id.n",), ("message.from.name=who", "message.body=body", "id"))
    (row,) = [row for partition in split([item], 10, reading) for row in rows([partition], reading)]
    assert (row["text"], row["document_id"], row["who"]) == ("inner", "7", "literal")
    assert (row["body"], json.loads(row["id"])) == ("inner", {"n": 7})
    flat = write(tmp_path, f"y.{format}", [{**DEEP, "message.body": "flat"}])
    assert rows([whole(flat)], reading)[0]["text"] == "flat"


def test_nulls_on_the_way_are_nulls(tmp_path: Path) -> None:
    """In Parquet a null struct has null fields; in JSON what is no object has no keys."""
    kind = pa.schema([("m", pa.struct({"b": pa.string()})), ("n", pa.int8())])
    item = write(tmp_path, "x.parquet", [{"m": None, "n": 1}, {"m": {"b": "b"}, "n": 2}], kind)
    assert [row["reason"] for row in rows([whole(item)], ReadOptions("m.b"))] == ["null", None]
    item = write(tmp_path, "x.jsonl", [{"m": None}, {"m": 1}, {"m": {"b": None}}, {"m": {"b": "b"}}])
    assert [row["reason"] for row in rows([whole(item)], ReadOptions("m.b"))] == [
        "missing_text", "missing_text", "null", None
    ]  # fmt: skip


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_a_path_that_leads_nowhere_is_an_error_of_the_plan(tmp_path: Path, format: str) -> None:
    """It is named, with the columns that there are."""
    item = write(tmp_path, f"x.{format}", [{"text": "a", "m": "b"}])
    for reading in (ReadOptions("m.b"), ReadOptions(id_columns=("text.m",)), ReadOptions(text_template="{text}{m.x}")):
        with pytest.raises(CorpusError, match=r"no column '(m\.b|text\.m|m\.x)'.*'text', 'm'"):
            list(split([item], 10, reading))


def test_only_the_fields_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """Of a struct, too: bytes of its other fields are never fetched."""
    records = [{"m": {"body": f"text {at}", "rest": f"{at:07}" * 600}, "other": "b"} for at in range(1000)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet", compression="none", use_dictionary=False)
    (item,) = list_objects([str(tmp_path)])
    assert item.size_bytes > 4 * 2**20  # read in ranges, not in one go
    fetched = 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal fetched
            body = super().read(-1 if size is None else size)
            fetched += len(body)
            return body

    with Counted(tmp_path / "x.parquet") as file:
        opened = open_parquet(file, item.size_bytes)
        found = ParquetDocuments(opened, item.uri, range(1), ReadOptions("m.body"), 1000, Oddities())
        assert sum(batch.num_rows for batch in found) == 1000
    assert fetched < 2**18


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_kept_and_id_columns_take_other_names(tmp_path: Path, format: str) -> None:
    """The last = counts; an id column with a name is also kept. One column may be kept twice."""
    item = write(tmp_path, f"x.{format}", [{"id": "1", "text": "a", "a=b": "c"}])
    reading = ReadOptions(id_columns=("id=key",), keep_columns=("a=b=ab", "id", "id=again"))
    (row,) = [row for partition in split([item], 10, reading) for row in rows([partition], reading)]
    assert (row["document_id"], row["key"], row["ab"], row["id"], row["again"]) == ("1", "1", "c", "1", "1")
    with pytest.raises(CorpusError, match="is given with another name, as a=b=NAME"):
        list(split([item], 10, ReadOptions(keep_columns=("a=b",))))
    with pytest.raises(JobError, match="kept column 'status' clashes"):
        list(split([item], 10, ReadOptions(keep_columns=("id=status",))))


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_a_template_joins_columns(tmp_path: Path, format: str) -> None:
    """In its order, with numbers as they are written; braces are doubled, and backslashes write what lines lack."""
    item = write(tmp_path, f"x.{format}", [{"title": "T", "n": 5, "body": "B"}])
    reading = ReadOptions(text_template=r"{{{title}}}\n\n{body}\t{n}\\")
    (row,) = [row for partition in split([item], 10, reading) for row in rows([partition], reading)]
    assert row["text"] == "{T}\n\nB\t5\\"


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_pieces_of_a_template_may_be_null(tmp_path: Path, format: str) -> None:
    """One counts as nothing; all of them are a reject, and so is white space alone."""
    records = [("a", None), (None, "b"), (None, None), (" ", ""), ("", "")]
    kind = pa.schema([("t", pa.string()), ("m", pa.struct({"b": pa.string()}))])
    item = write(tmp_path, f"x.{format}", [{"t": title, "m": {"b": body}} for title, body in records], kind)
    found = rows([whole(item)], ReadOptions(text_template=r"{t}\n{m.b}"))
    assert [(row["text"], row["reason"]) for row in found] == [
        ("a\n", None), ("\nb", None), (None, "null"), (None, "whitespace"), (None, "whitespace")
    ]  # fmt: skip
    assert rows([whole(item)], ReadOptions(text_template="{t}{m.b}"))[4]["reason"] == "empty"


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("template", [None, "{text}"])
def test_a_list_of_strings_is_its_lines(tmp_path: Path, format: str, template: str | None) -> None:
    """Nulls in it are left out; an empty one is an empty text, and no list is null."""
    records = [["one", None, "two"], [], None, ["é"], [None]]
    kind = pa.schema([("text", pa.list_(pa.string()))])
    item = write(tmp_path, f"x.{format}", [{"text": value} for value in records], kind)
    reading = ReadOptions(text_template=template, max_document_bytes=20)
    found = [row for partition in split([item], 10, reading) for row in rows([partition], reading)]
    assert [row["text"] for row in found] == ["one\ntwo", None, None, "é", None]
    assert [row["reason"] for row in found] == [None, "empty", "null", None, "empty"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.large_string()),
        pa.list_(pa.string(), 2),
        pa.list_(pa.binary()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_lists_of_any_kind_of_strings_are_lines(tmp_path: Path, kind: pa.DataType) -> None:
    """As they are in Parquet, also where the first rows are skipped and one is too large."""
    values = pa.array([["a", "b"], None, ["c" * 30, "d" * 30], ["e", None]], kind)
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": values}), sink)
    found = rows([whole(put(tmp_path, "x.parquet", sink.getvalue()))], ReadOptions(max_document_bytes=40))
    assert [(row["text"], row["reason"]) for row in found] == [
        ("a\nb", None), (None, "null"), (None, "too_large"), ("e", None)
    ]  # fmt: skip


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """Lists of other things: by the plan in Parquet, line by line in JSON."""
    kind = pa.schema([("text", pa.list_(pa.int8()))])
    with pytest.raises(CorpusError, match=r"has the type list<.*int8"):
        list(split([write(tmp_path, "x.parquet", [{"text": [1]}], kind)], 10, ReadOptions()))
    item = write(tmp_path, "x.jsonl", [{"text": [1]}, {"text": {"a": "b"}}, {"text": ["a", ["b"]]}])
    for reading in (ReadOptions(), ReadOptions(text_template="{text}")):
        assert [row["reason"] for row in rows([whole(item)], reading)] == ["missing_text"] * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_template": "{a", }, "stands by itself"),
        ({"text_template": "a}"}, "character 2 stands by itself"),
        ({"text_template": "{}"}, "stands by itself"),
        ({"text_template": "plain"}, "names no column"),
        ({"text_template": "{a}", "text_column": "b"}, "has no effect"),
        ({"keep_columns": ["text=copy"]}, "texts stay in the corpus"),
    ],
)  # fmt: skip
def test_a_name_that_means_nothing_is_refused(change: dict[str, Any], named: str) -> None:
    """With the job, before anything is read."""
    with pytest.raises(JobError, match=named):
        Job.build({**JOB, **change})


def test_names_make_other_work() -> None:
    """A template and another name change what a part holds."""
    digests = {
        Job.build({**JOB, **change}).options_digest
        for change in ({}, {"text_template": "{a}"}, {"keep_columns": ["a"]}, {"keep_columns": ["a=b"]})
    }
    assert len(digests) == 4
    assert column_of("a=b=c") == ("a=b", "c")
    assert column_of("=c") == ("", "c")
    assert Job.build({**JOB, "keep_columns": ["a=b"], "id_columns": ["c=d"]}).reading.kept_names == ("b", "d")


PLAIN = st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(PLAIN, min_size=1), st.lists(st.text(), min_size=1))
def test_any_template_is_read_as_python_formats_it(columns: list[str], literals: list[str]) -> None:
    """Doubled braces and all; line ends and tabs are two characters besides."""
    size = min(len(columns), len(literals))
    escaped = [text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}") for text in literals]
    given_text = "".join(f"{text}{{{column}}}" for text, column in zip(escaped, columns, strict=False))
    assert template_of(given_text) == ((*literals[:size], ""), tuple(columns[:size]))


def test_a_name_of_nothing_may_be_given_a_name(tmp_path: Path) -> None:
    """The first column of a CSV file that pandas wrote has no name."""
    item = put(tmp_path, "x.csv", b",text\n7,a\n")
    assert rows([whole(item)], ReadOptions(id_columns=("=row",)))[0]["document_id"] == "7"
    assert list_objects([str(tmp_path)]) == [item]
