"""Objects of web servers and of other stores that fsspec knows, and buckets that are open to everybody."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import dask
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.corpus import list_objects, split
from corpuscore.errors import CorpusError, JobError, ObjectChanged, StorageError, StorageUnavailable
from corpuscore.job import Job
from corpuscore.options import ReadOptions, SelectOptions
from corpuscore.storage import Store, filesystem, find_entry
from tests.corpus.reading import texts
from tests.servers.s3 import answering, point_at
from tests.servers.web import PlainHandler, RangeHandler, serving

LINES = [f"line {number}" for number in range(2000)]
JSON = b"".join(b'{"text": "%s"}\n' % line.encode() for line in LINES)


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": LINES * 10}), sink, row_group_size=5_000, use_dictionary=False)
    return sink.getvalue()


@pytest.fixture(params=[RangeHandler, PlainHandler])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server over tmp_path, with ranges and without."""
    with serving(tmp_path, request.param) as address:
        yield address


def test_objects_of_a_web_server_are_read(web: str, tmp_path: Path) -> None:
    """By exact URLs, cut like others; with ranges, or whole where the server knows none."""
    (tmp_path / "a b.jsonl").write_bytes(JSON)
    (tmp_path / "x.parquet").write_bytes(_parquet())
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(JSON))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    for name, expected in (("a b.jsonl", LINES), ("x.parquet", LINES * 10), ("z.jsonl.gz", LINES), ("empty.jsonl", [])):
        objects = list_objects([f"{web}/{name}"])
        assert [item.uri for item in objects] == [f"{web}/{name}"]
        assert texts(split(objects, 1000, ReadOptions())) == expected
    (queried,) = list_objects([f"{web}/a%20b.jsonl?download=true"])
    assert texts(split([queried], 1000, ReadOptions())) == LINES


def test_an_object_of_a_web_server_has_a_version(web: str, tmp_path: Path) -> None:
    """Its ETag, or Last-Modified and size: one that was replaced is noticed."""
    (tmp_path / "a.jsonl").write_bytes(JSON)
    (planned,) = list_objects([f"{web}/a.jsonl"])
    assert list_objects([f"{web}/a.jsonl"]) == [planned]
    partitions = list(split([planned], 1000, ReadOptions()))
    (tmp_path / "a.jsonl").write_bytes(JSON + JSON)
    with pytest.raises(ObjectChanged):
        texts(partitions)


def test_what_a_web_server_does_not_have_is_an_error(web: str) -> None:
    """Nothing there, also where a pattern or a folder is asked for; no server at all is one that may come back."""
    for name in ("absent.jsonl", "*.jsonl", "folder/"):
        with pytest.raises(CorpusError, match=r"nothing there.*exact URL"):
            list_objects([f"{web}/{name}"])


def _answer(status: int, request: BaseHTTPRequestHandler) -> tuple[int, str]:
    return status, "x"


def test_what_a_web_server_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Access refused is final, being out of order passes, and an object without a version cannot be planned."""
    monkeypatch.setitem(dask.config.config, "corpuscore", {"wait-for-store": "0.1s"})
    for status, kind, said in (
        (403, StorageError, "access refused"),
        (503, StorageUnavailable, "503"),
        (418, StorageError, "418"),
        (200, StorageError, "neither ETag nor Last-Modified"),
    ):
        answer = partial(_answer, status)
        with answering(answer) as address, pytest.raises(kind, match=said):
            find_entry(f"{address}/x.jsonl")


def test_other_stores_are_read_through_fsspec() -> None:
    """Any file system that fsspec has: one in memory stands for them."""
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "deep/b.jsonl", "_SUCCESS"):
        memory.pipe_file(f"/corpus-of-a-test/{name}", JSON)
    objects = list_objects(["memory://corpus-of-a-test"])
    assert [item.uri for item in objects] == [
        f"memory://corpus-of-a-test/{name}" for name in ("a.jsonl", "deep/b.jsonl")
    ]
    assert texts(split(objects, 1000, ReadOptions())) == LINES * 2
    assert list_objects(["memory://corpus-of-a-test/*.jsonl"]) == objects[:1]


@pytest.mark.parametrize(
    ("uri", "package"), [("gs://bucket/x", "gcsfs"), ("az://box/x", "adlfs"), ("oss://b/x", "ossfs")]
)
def test_a_driver_that_is_not_installed_is_named(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that has it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StorageError, match=f"Next: pip install {package}"):
        list_objects([uri])


def test_an_open_bucket_is_read_without_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a corpus are not signed then, also where there are credentials; those of a work location are."""
    Store(s3).write("a.jsonl", JSON)
    client, path = filesystem(f"{s3}/a.jsonl")
    client.call_s3("put_object_acl", Bucket=path.partition("/")[0], Key="a.jsonl", ACL="public-read")
    reading, selection = ReadOptions(anonymous=True), SelectOptions(anonymous=True)
    assert texts(split(list_objects([s3], selection=selection), 1000, reading), reading) == LINES
    signed: list[bool] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        signed.append("Authorization" in request.headers)
        return 403, "AccessDenied"

    with answering(respond) as endpoint:
        point_at(endpoint, monkeypatch)
        for options in (selection, SelectOptions()):
            with pytest.raises(StorageError, match="access refused"):
                list_objects(["s3://open/x/"], selection=options)
        with pytest.raises(StorageError, match="access refused"):
            Store("s3://open/work").write("x", b"")
    assert signed == [False, True, True]


def test_anonymous_needs_a_store_that_may_be_open() -> None:
    """An option without effect is an error."""
    values = {"work": "/w", "warehouse": "duckdb:////f", "anonymous": True}
    assert Job.build({**values, "corpus": ["S3://bucket/x"]}).selection.anonymous
    with pytest.raises(JobError, match=r"--anonymous is for a corpus at s3://"):
        Job.build({**values, "corpus": ["/data"]})
