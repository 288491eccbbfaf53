"""Which objects a corpus has, on a folder and on a bucket; and what is wrong with an object as a whole."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.corpus import DocumentReader, find_departed, list_objects, split
from corpuscore.errors import CorpusError, JobError, ObjectChanged, StorageError
from corpuscore.options import ReadOptions
from corpuscore.storage import Store
from tests.corpus.reading import put, rows, whole

NAMES = ["a/1.jsonl", "a/2.csv.gz", "a/deep/3.parquet", "a/deep/4.txt", "a-b/5.jsonl", "a/_SUCCESS", "a/.x.jsonl",
         "a/_temporary/6.jsonl"]  # fmt: skip


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, or a real S3 server's bucket."""
    return Store(str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3"))


def _listed(place: Store, *patterns: str) -> list[str]:
    found = list_objects([place.uri_of(pattern) for pattern in patterns])
    return [item.uri.removeprefix(place.uri_of("")) for item in found]


def test_lists_objects_prefixes_and_patterns(place: Store) -> None:
    """An object, a prefix with or without its slash, or a glob; hidden names and markers only when named exactly."""
    for name in NAMES:
        place.write(name, b"x")
    everything = ["a-b/5.jsonl", "a/1.jsonl", "a/2.csv.gz", "a/deep/3.parquet", "a/deep/4.txt"]
    assert _listed(place, "a/1.jsonl") == ["a/1.jsonl"]
    assert _listed(place, "a") == _listed(place, "a/") == everything[1:]
    assert _listed(place, "") == everything
    assert _listed(place, "a/*") == ["a/1.jsonl", "a/2.csv.gz"]
    assert _listed(place, "**/*.jsonl") == ["a-b/5.jsonl", "a/1.jsonl"]
    assert _listed(place, "a*/[15].jsonl") == ["a-b/5.jsonl", "a/1.jsonl"]
    assert _listed(place, "a/", "a/*", "a/1.jsonl") == everything[1:]
    assert _listed(place, "a/.x.jsonl") == ["a/.x.jsonl"]


@pytest.mark.parametrize(
    "corpus", [["a"], ["a/"], ["a*/*.jsonl"], ["a/**"], ["a/deep/*", "a-b"], ["a/1.jsonl", "a/_temporary"]]
)
def test_what_a_listing_no_longer_names_has_departed(place: Store, corpus: list[str]) -> None:
    """Just what the listing would have named: no neighbours, no hidden names, nothing that a pattern leaves out."""
    for name in NAMES:
        place.write(name, b"x")
    uris = [place.uri_of(name) for name in corpus]
    known, listed = [place.uri_of(name) for name in NAMES], {item.uri for item in list_objects(uris)}
    assert find_departed(known, uris, listed) == []
    for gone in listed:
        assert find_departed(known, uris, listed - {gone}) == [gone]


def test_an_object_has_nothing_under_it() -> None:
    """A bucket may hold an object whose name is the prefix of others: named as a corpus, it is the object."""
    assert find_departed(["s3://b/x/y", "s3://b/x"], ["s3://b/x"], {"s3://b/x"}) == []


def test_knows_formats_and_versions(place: Store) -> None:
    """The format goes by the name; the ETag stays while the object does, and changes when it is written again."""
    for name in NAMES:
        place.write(name, b"x")
    objects = list_objects([place.uri_of("a/")])
    assert [item.format for item in objects] == ["jsonl", "csv", "parquet", "text"]
    assert {item.format for item in list_objects([place.uri_of("a/")], "text")} == {"text"}
    assert objects == list_objects([place.uri_of("a/")])
    place.write("a/1.jsonl", b"other")
    changed = list_objects([place.uri_of("a/")])
    assert [new.etag != old.etag for old, new in zip(objects, changed, strict=True)] == [True, False, False, False]
    assert changed[0].size_bytes == 5


def test_lists_more_than_a_page(s3: str) -> None:
    """A listing goes on after a page (of 50, as the server is set), and misses nothing."""
    for number in range(120):
        Store(s3).write(f"many/{number:04d}.txt", b"x")
    assert len(list_objects([s3 + "/many/"])) == 120


def test_a_path_has_one_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute and file:// name the same object the same way."""
    put(tmp_path, "in here/x.txt", b"x")
    monkeypatch.chdir(tmp_path / "in here")
    spellings = [
        "x.txt",
        "./x.txt",
        "../in here/x.txt",
        str(tmp_path / "in here/x.txt"),
        f"file://{tmp_path}/in here/x.txt",
    ]
    assert {item.uri for spelling in spellings for item in list_objects([spelling])} == {
        f"file://{tmp_path}/in here/x.txt"
    }


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    """A folder that links to its parent is walked once."""
    put(tmp_path, "corpus/x.txt", b"x")
    (tmp_path / "corpus" / "loop").symlink_to(tmp_path / "corpus")
    assert len(list_objects([str(tmp_path / "corpus")])) <= 2


@pytest.mark.parametrize("pattern", ["nothing/", "nothing", "nothing.jsonl", "*.jsonl"])
def test_nothing_there_is_an_error(place: Store, pattern: str) -> None:
    """A URI that matches nothing is named, with what to do."""
    place.write("other/x.txt", b"x")
    with pytest.raises(CorpusError, match=r"no objects there.*Next: check the spelling"):
        list_objects([place.uri_of(pattern)])


def test_an_absent_bucket_is_an_error(s3: str) -> None:
    """No such bucket is not an empty corpus."""
    with pytest.raises(StorageError, match="no such bucket"):
        list_objects([s3 + "-absent/corpus/"])


@pytest.mark.parametrize("name", ["x.docx", "x", "x.parquet.gz", "x.jsonl.lz4"])
def test_an_unknown_format_is_an_error(tmp_path: Path, name: str) -> None:
    """A name that says no format is named, with the formats there are."""
    with pytest.raises(CorpusError, match=r"unknown format.*\.parquet.*Next: name the format"):
        put(tmp_path, name, b"x")


@pytest.mark.parametrize("partition_rows", [1, 10_000])
@pytest.mark.parametrize("column", ["text_column", "id_columns", "keep_columns"])
@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.csv", "x.csv.gz", "x.jsonl.zst"])
def test_a_missing_column_is_found_by_the_plan(tmp_path: Path, name: str, column: str, partition_rows: int) -> None:
    """The plan names the column that is not there and those that are, for small and large objects."""
    absent: Any = "absent" if column == "text_column" else ("absent",)
    reading = ReadOptions(**{column: absent})
    bodies: dict[str, Callable[[], bytes]] = {
        "x.parquet": lambda: _parquet_bytes({"text": ["a"] * 9, "other": ["b"] * 9}),
        "x.jsonl": lambda: b'{"text": "a", "other": "b"}\n' * 9,
        "x.csv": lambda: b"text,other\n" + b"a,b\n" * 9,
    }
    body = bodies[name.removesuffix(".gz").removesuffix(".zst")]()
    body = gzip.compress(body) if name.endswith(".gz") else body
    body = pa.compress(body, codec="zstd", asbytes=True) if name.endswith(".zst") else body
    with pytest.raises(CorpusError, match=r"no column 'absent'.*'text', 'other'.*Next: give --text-column"):
        list(split([put(tmp_path, name, body)], partition_rows, reading))


def _parquet_bytes(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.txt"])
def test_an_object_of_no_bytes_is_no_obstacle(tmp_path: Path, name: str) -> None:
    """Also the first one, whose columns the plan looks at: writers leave such files for partitions without rows."""
    full = put(tmp_path, "y.jsonl", b'{"id": 1, "text": "soup"}\n')
    reading = ReadOptions(id_columns=("id",)) if name != "x.txt" else ReadOptions()
    assert full.uri in [partition.uri for partition in split([put(tmp_path, name, b""), full], 10, reading)]


def test_empty_objects_hide_nothing(tmp_path: Path) -> None:
    """The columns of the first object that holds anything are checked; Parquet of no bytes is an error of the plan."""
    empty, full = put(tmp_path, "a.jsonl", b""), put(tmp_path, "b.jsonl", b'{"id": 1, "other": "soup"}\n')
    with pytest.raises(CorpusError, match=r"b\.jsonl: no column 'text'"):
        list(split([empty, full], 10, ReadOptions()))
    with pytest.raises(CorpusError, match=r"c\.parquet cannot be read"):
        list(split([empty, put(tmp_path, "c.parquet", b"")], 10, ReadOptions()))


def test_columns_of_different_lengths_are_an_error(tmp_path: Path) -> None:
    """A row group whose columns hold more or fewer values than rows is corrupt: no row of it vanishes."""
    body = _parquet_bytes({"id": [str(number) for number in range(10)], "text": ["a"] * 10})
    ten, eight = b"\x16\x14", b"\x16\x10"  # a number of 64 bits in the footer
    places = [at for at in range(len(body)) if body.startswith(ten, at)]
    changed = [body[:at] + eight + body[at + 2 :] for at in places]
    lengths = [pq.ParquetFile(pa.BufferReader(other)).metadata.row_group(0).column(1).num_values for other in changed]
    (short,) = [other for other, length in zip(changed, lengths, strict=True) if length == 8]
    assert pq.read_table(pa.BufferReader(body)).num_rows == 10
    with pytest.raises(CorpusError, match=r"has 8 values by the footer and 10 in its pages, and the row group 10 rows"):
        rows([whole(put(tmp_path, "x.parquet", short))], ReadOptions(id_columns=("id",)))


def test_a_text_column_of_numbers_is_an_error(tmp_path: Path) -> None:
    """Numbers are not text, and the type is named."""
    with pytest.raises(CorpusError, match="has the type int64"):
        list(split([put(tmp_path, "x.parquet", _parquet_bytes({"text": [1]}))], 10, ReadOptions()))


def test_a_json_array_is_an_error(tmp_path: Path) -> None:
    """A JSON document that is no JSON Lines says how to convert it."""
    item = put(tmp_path, "x.json", b'[\n  {"text": "a"},\n  {"text": "b"}\n]')
    with pytest.raises(CorpusError, match=r"JSON array.*jq"):
        list(split([item], 10, ReadOptions()))


def test_options_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    """Plain text has no columns, and a kept column may not hide one of the result's."""
    item = put(tmp_path, "x.txt", b"x")
    with pytest.raises(JobError, match="plain text has no columns"):
        list(split([item], 10, ReadOptions(id_columns=("id",))))
    with pytest.raises(JobError, match="kept column 'status' clashes with column status"):
        list(split([item], 10, ReadOptions(keep_columns=("status",))))


LINES = gzip.compress(b"".join(b'{"text": "line %d"}\n' % number for number in range(5000)))
TABLE = _parquet_bytes({"text": [f"text {number}" for number in range(5000)]})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("text.parquet", b"not Parquet at all"),
        ("empty.parquet", b""),
        ("hole.parquet", TABLE[:-200] + TABLE[-100:]),
        ("pages.parquet", TABLE[:4] + b"\xff" * 200 + TABLE[204:]),
        ("half.jsonl.gz", LINES[: len(LINES) // 2]),
        ("text.jsonl.gz", b"not gzip at all"),
        ("text.jsonl.zst", b"not zstd at all"),
        ("header.csv", b"id,te\xffxt\n1,x\n"),
    ],
)
def test_a_corrupt_object_is_an_error(place: Store, name: str, body: bytes) -> None:
    """An object that cannot be read as a whole is named, with what to do; the error pickles."""
    place.write(name, body)
    (item,) = list_objects([place.uri_of(name)])
    with pytest.raises(CorpusError, match=rf"{name} cannot be read: .*Next: write it again") as caught:
        rows([whole(item)])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (made in this line)


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.jsonl.gz"])
def test_a_replaced_object_is_noticed(place: Store, name: str) -> None:
    """An object that was written again, or removed, between plan and read is never mixed in."""

    def body(text: str) -> bytes:
        line = b'{"text": "%s"}' % text.encode()
        return {"x.jsonl": line, "x.jsonl.gz": gzip.compress(line), "x.parquet": _parquet_bytes({"text": [text]})}[name]

    place.write(name, body("before"))
    (item,) = list_objects([place.uri_of(name)])
    place.write(name, body("after!"))
    with pytest.raises(ObjectChanged, match=r"was planned with ETag.*Next: plan again"):
        rows([whole(item)])
    place.delete([name])
    with pytest.raises(ObjectChanged, match="is now gone"):
        rows([whole(item)])


def test_an_object_replaced_while_it_is_read_is_noticed(s3: str) -> None:
    """A store never serves bytes of two versions: the second request fails where the object was replaced."""
    store = Store(s3)
    store.write("x.jsonl", b'{"text": "a line of the first"}\n' * 300_000)  # 9 MB, read in requests of 4 MB
    (item,) = list_objects([store.uri_of("x.jsonl")])
    with DocumentReader(whole(item), ReadOptions()) as reader:
        batches = iter(reader)
        next(batches)
        store.write("x.jsonl", b'{"text": "a line of the second"}\n' * 300_000)
        with pytest.raises(ObjectChanged):
            list(batches)


def test_a_file_written_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """A file that grew in place is found out at its end."""
    item = put(tmp_path, "x.jsonl", b'{"text": "a"}\n' * 5000)
    with DocumentReader(whole(item), ReadOptions()) as reader:
        batches = iter(reader)
        next(batches)
        with (tmp_path / "x.jsonl").open("ab") as file:
            file.write(b'{"text": "more"}\n')
        with pytest.raises(ObjectChanged):
            list(batches)


def test_errors_of_the_consumer_stay_its_own(tmp_path: Path) -> None:
    """What goes wrong in the loop over a reader is not blamed on the object."""
    item = put(tmp_path, "x.jsonl", b'{"text": "a"}\n')

    def consume() -> None:
        with DocumentReader(whole(item), ReadOptions()) as reader:
            for _ in reader:
                raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        consume()


def test_reads_the_same_from_a_bucket_as_from_a_folder(s3: str, tmp_path: Path) -> None:
    """Partitions of every format hold the same rows on both, but for the URI in the ids."""
    lines = [f"paragraph {number} " + "word " * (number % 50) for number in range(3000)]
    bodies = {
        "x.jsonl": b"".join(b'{"text": "%s"}\n' % line.encode() for line in lines),
        "x.csv": b"text\n" + b"".join(b'"%s"\n' % line.encode() for line in lines),
        "x.txt": b"".join(b"%s\n\n" % line.encode() for line in lines),
    }
    table = pa.table({"text": lines * 20})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=5000, compression="none", use_dictionary=False)
    bodies["x.parquet"] = (tmp_path / "x.parquet").read_bytes()
    assert len(bodies["x.parquet"]) > 4 * 2**20  # read in ranges, not in one go
    for name, body in bodies.items():
        Store(s3).write(name, body)
        found = []
        for uri in (put(tmp_path, name, body).uri, f"{s3}/{name}"):
            partitions = list(split(list_objects([uri]), 1000, ReadOptions()))
            assert len(partitions) > 1
            found.append([(row["position"], row["text"], row["reason"]) for row in rows(partitions)])
        assert found[0] == found[1]
        assert len(found[0]) == (60_000 if name == "x.parquet" else 3000)


def test_a_plan_of_a_grown_corpus_keeps_its_work(place: Store) -> None:
    """New objects add partitions; those of the old ones stay as they are, work ids included."""
    for name in ("b.jsonl", "d.jsonl"):
        place.write(name, b'{"text": "x"}\n' * 2000)
    before = {partition.work_id("f", "o") for partition in split(list_objects([place.uri]), 100, ReadOptions())}
    for name in ("a.jsonl", "c.jsonl"):
        place.write(name, b'{"text": "new and longer"}\n' * 3000)
    after = {partition.work_id("f", "o") for partition in split(list_objects([place.uri]), 100, ReadOptions())}
    assert len(before) > 20
    assert before < after


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A file without read permission says so; root may read everything, so there a folder stands in."""
    item = put(tmp_path, "x.jsonl", b"x")
    path = tmp_path / "x.jsonl"
    if os.geteuid() == 0:
        path.unlink()
        path.mkdir()
    else:
        path.chmod(0)
    with pytest.raises(StorageError, match=r"permission denied|folders hold files"):
        rows([whole(item)])
