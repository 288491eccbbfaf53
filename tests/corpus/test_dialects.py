"""CSV in every dialect: the rows of Python's csv module, in whatever ranges; and what is odd about quotes is said."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpuscore.corpus import DocumentReader, split
from corpuscore.corpus.csvrecords import CsvRecords
from corpuscore.corpus.dialect import Dialect
from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.oddities import Oddity
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, ranges, reasons, rows, texts, whole
from tests.corpus.test_ranges import FEW

ODD = '1,"he said \\"soup\\" and left"\n2,"ends with quote \\""\n3,"rain"\n4,"bear"\n'
SAID = ['he said "soup" and left', 'ends with quote "', "rain", "bear"]


def oddities(partitions: list[Any], reading: ReadOptions | None = None) -> dict[str, Oddity]:
    """What was odd about some partitions."""
    found: dict[str, Oddity] = {}
    for partition in partitions:
        with DocumentReader(partition, reading or ReadOptions()) as reader:
            list(reader)
        found.update(reader.counts.oddities.found)
    return found


DIALECTS = st.sampled_from(
    [
        {"csv_delimiter": delimiter, "csv_quote": quote, "csv_escape": escape}
        for delimiter in ",\t;|"
        for quote, escape in (('"', "none"), ("'", "none"), ('"', "\\"), ("'", "\\"), ("none", "\\"), ('"', "^"))
    ]
)
FIELDS = st.text(st.sampled_from("ab\",;|\t'\\^\n #é"), max_size=8)


def written(table: list[tuple[str, str]], options: dict[str, str], line_end: str, quoting: Any) -> bytes:
    """A table as Python's csv module writes it."""
    quote, escape = options["csv_quote"], options["csv_escape"]
    sink = io.StringIO(newline="")
    writer = csv.writer(
        sink,
        delimiter=options["csv_delimiter"],
        quotechar=None if quote == "none" else quote,
        escapechar=None if escape == "none" else escape,
        doublequote=escape == "none",
        lineterminator=line_end,
        quoting=csv.QUOTE_NONE if quote == "none" else quoting,
    )
    writer.writerows([("id", "text"), *table])
    return sink.getvalue().encode()


@FEW
@given(
    st.lists(st.tuples(FIELDS, FIELDS), max_size=8),
    DIALECTS,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.lists(st.integers(9, 120), max_size=4),
)
@example(
    [("a", "b\\"), ("\\", '"'), ("c\n", "\\\n")], {"csv_delimiter": ",", "csv_quote": '"', "csv_escape": "\\"}, 0, [12]
)
def test_reads_what_python_writes(
    table: list[tuple[str, str]], options: dict[str, Any], quoting: Any, edges: list[int]
) -> None:
    """In every dialect, quoted and escaped as the module has it, whole and in any ranges."""
    body = written(table, options, "\n", quoting)
    reading = ReadOptions(keep_columns=("id",), **options)
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.csv", body)
        found = rows([whole(item)], reading)
        assert [row["id"] for row in found] == [row[0] for row in table]
        assert [row["text"] for row in found] == [row[1] if row[1].strip() else None for row in table]
        assert rows(ranges(item, edges), reading) == found


PIECES = st.sampled_from(["\n", '"', '""', '\\"', "\\\\", "\\,", "\\\n", ",", "a", "bc", "#", "# x\n", '"a', 'b"', "é"])


@FEW
@given(st.lists(PIECES, max_size=30).map("".join), st.lists(st.integers(8, 80), max_size=5))
@example('\\\n"a', [9])
@example('""\\",', [])
@example('""\\\\\n,a', [])
def test_escapes_are_those_of_python(content: str, edges: list[int]) -> None:
    """Whatever stands where, the rows are those of Python's reader, and those of all ranges together."""
    body = "id,text\n" + content + "z"  # to an escape that nothing follows, Python adds a line end
    expected = [row for row in csv.reader(io.StringIO(body, newline="\n"), escapechar="\\") if row][1:]
    reading = ReadOptions(keep_columns=("id",), csv_escape="\\")
    with tempfile.TemporaryDirectory() as folder:
        item = put(Path(folder), "x.csv", body.encode())
        found = rows([whole(item)], reading)
        parts = rows(ranges(item, edges), reading)
    told = [(row["id"], row["text"] or "") for row in found if row["reason"] != "csv_columns"]
    assert told == [(row[0], row[1] if row[1].strip() else "") for row in expected if len(row) == 2]
    assert parts == found


@FEW
@given(
    st.lists(PIECES, max_size=30).map("".join).map(str.encode),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from([Dialect(escape="\\"), Dialect(quote="", escape="\\"), Dialect(comment="#"), Dialect(quote="'")]),
)
def test_records_do_not_depend_on_blocks(content: bytes, sizes: list[int], dialect: Dialect) -> None:
    """A block may break off anywhere, also behind an escape."""
    blocks: list[bytes] = []
    at = 0
    while at < len(content):
        blocks.append(content[at : at + sizes[len(blocks) % len(sizes)]])
        at += len(blocks[-1])
    one, many = (list(CsvRecords(given, 0, 10**9, 10**6, dialect)) for given in ([content], blocks))
    assert one == many


def test_backslashes_of_spark_are_recognised_and_said(tmp_path: Path) -> None:
    """Four rows are four documents where the first rows make no sense without escapes; the option says so, too."""
    item = put(tmp_path, "x.csv", b"id,text\n" + ODD.encode())
    assert texts([whole(item)]) == SAID
    assert list(oddities([whole(item)])) == ["csv_escape"]
    assert texts([whole(item)], ReadOptions(csv_escape="\\")) == SAID
    assert oddities([whole(item)], ReadOptions(csv_escape="\\")) == {}


def test_backslashes_are_recognised_in_every_range(tmp_path: Path) -> None:
    """Ranges far behind the beginning are read as it says, and it is said once."""
    item = put(tmp_path, "x.csv", b"id,text\n" + ODD.encode() * 3000)
    parts = list(split([item], 2000, ReadOptions()))
    assert len(parts) > 3
    assert texts(parts) == SAID * 3000
    assert oddities(parts)["csv_escape"].count == 1


def test_backslashes_that_are_text_stay_text(tmp_path: Path) -> None:
    """Paths that end in a backslash are no escapes; where nothing is recognised, a backslash before a quote is said."""
    item = put(tmp_path, "x.csv", b'id,text\n1,"C:\\dir\\"\n2,"a, b"\n')
    assert texts([whole(item)]) == ["C:\\dir\\", "a, b"]
    assert oddities([whole(item)])["csv_backslash"].example.endswith("x.csv, byte 8")
    assert oddities([whole(item)], ReadOptions(csv_escape="none")) == {}


def test_rows_that_a_quote_swallows_are_said(tmp_path: Path) -> None:
    """A quote that never closes, text behind a closing one, a field of thousands of lines, rows of another width."""
    bodies = {
        "csv_unclosed": b'id,text\n1,"never closed\n2,a\n3,b\n',
        "csv_after_quote": b'id,text\n1,"never closed\n2,"a"\n3,b\n',
        "csv_long_row": b'id,text\n1,"' + b"line\n" * 1500 + b'"\n2,b\n',
        "csv_columns": b"id,text\n1,a,b\n2\n3,c\n",
    }
    for kind, body in bodies.items():
        item = put(tmp_path, "x.csv", body)
        found = oddities([whole(item)])
        assert kind in found, kind
        assert item.uri in found[kind].example
    assert oddities([whole(put(tmp_path, "x.csv", b'id,text\n1,"a\nb ""c"""\n'))]) == {}


def test_a_blank_row_of_one_column_is_a_reject(tmp_path: Path) -> None:
    """There it is a row whose text is empty; in a file of more columns it is a blank line."""
    assert reasons([whole(put(tmp_path, "x.csv", b"text\na\n\nb\n"))]) == [None, "empty", None]
    assert reasons([whole(put(tmp_path, "y.csv", b"id,text\n1,a\n\n2,b\n"))]) == [None, None]


def test_tabs_by_name_and_by_option(tmp_path: Path) -> None:
    """A .tsv or .tab has tabs, also compressed ones' names; an option says otherwise; a blank row of tabs is a row."""
    body = b'id\ttext\n1\ta, b\n\t\n2\t"c\td"\n'
    for name in ("x.tsv", "x.TAB", "x.csv"):
        reading = ReadOptions(csv_delimiter="\t" if name == "x.csv" else "auto")
        assert texts([whole(put(tmp_path, name, body))], reading) == ["a, b", None, "c\td"]
    assert texts([whole(put(tmp_path, "x.tsv", b"id,text\n1,a\n"))], ReadOptions(csv_delimiter=",")) == ["a"]


def test_header_names_and_comments(tmp_path: Path) -> None:
    """Columns are named where the file has no header; comments are no rows, and may hold quotes; in any ranges."""
    reading = ReadOptions(id_columns=("id",), csv_header=("id", "text"), csv_comment="#")
    item = put(tmp_path, "x.csv", b'\xef\xbb\xbf# a "comment\n1,a\n#2,b\n3,"# c\n# d"\n# "end')
    found = rows([whole(item)], reading)
    assert [(row["document_id"], row["text"]) for row in found] == [("1", "a"), ("3", "# c\n# d")]
    for edge in range(1, item.size_bytes):
        assert rows(ranges(item, [edge]), reading) == found
    item = put(tmp_path, "y.csv", b"# first\nid,text\n1,a\n")
    assert texts([whole(item)], ReadOptions(csv_comment="#")) == ["a"]


JOB = {"corpus": ["/data"], "work": "/work", "warehouse": "duckdb:////data/s.duckdb"}


def test_options_are_spelled_as_people_type_them() -> None:
    """Tabs by their name, and encodings by any of theirs."""
    job = Job.build({**JOB, "csv_delimiter": "tab", "csv_escape": "\\", "encoding": "UTF8"})
    assert (job.reading.csv_delimiter, job.reading.csv_escape, job.reading.encoding) == ("\t", "\\", "utf-8")
    assert Job.build({**JOB, "csv_delimiter": r"\t"}) == Job.build({**JOB, "csv_delimiter": "\t"})
    assert (
        Job.build({**JOB, "encoding": "latin1"}).options_digest == Job.build({**JOB, "encoding": "L1"}).options_digest
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv_delimiter": "||"}, "one character"),
        ({"csv_delimiter": "a"}, "one character"),
        ({"csv_delimiter": ""}, "one character"),
        ({"csv_quote": "»"}, "one character"),
        ({"csv_comment": "\n"}, "one character"),
        ({"csv_delimiter": ";", "csv_comment": ";"}, "two are the same"),
        ({"csv_escape": '"'}, "need no escape"),
        ({"csv_header": ["a", "a"]}, "named twice"),
        ({"encoding": "utf-9"}, "no encoding"),
        ({"encoding": "base64"}, "no encoding"),
        ({"encoding": "idna"}, "no encoding"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    """In words, before anything is listed."""
    with pytest.raises(JobError, match=message):
        Job.build({**JOB, **options})


def test_options_of_csv_need_csv(tmp_path: Path) -> None:
    """An option without effect is an error of the plan."""
    item = put(tmp_path, "x.jsonl", b'{"text": "a"}\n')
    with pytest.raises(JobError, match="--csv-delimiter.*no CSV"):
        list(split([item], 10, ReadOptions(csv_delimiter=";")))
