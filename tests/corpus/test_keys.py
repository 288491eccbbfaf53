"""Keys of a bucket that are no paths: scored like others, or named, never left out without a word."""

from __future__ import annotations

import logging

import pytest

from corpuscore.corpus import confirm_gone, find_departed, list_objects, split
from corpuscore.options import ReadOptions
from corpuscore.storage import filesystem
from tests.corpus.reading import texts

ODD = ["a/../b.jsonl", "a/./b.jsonl", "a//b.jsonl", "../x.jsonl", "a?b#c.jsonl", "a b+c%20é.jsonl", "x\\y.jsonl"]
HIDDEN = [".x.jsonl", "_SUCCESS", "a/.git/b.jsonl", "_tmp/c.jsonl", "a/../.x.jsonl"]


def put(uri: str, body: bytes) -> None:
    """Write an object under exactly this key: s3fs's own ways drop slashes at the end."""
    client, path = filesystem(uri)
    bucket, _, key = path.partition("/")
    client.call_s3("put_object", Bucket=bucket, Key=key, Body=body)


def test_odd_keys_are_read(s3: str) -> None:
    """Dots and empty names between slashes, question marks, blanks: each object is listed, and its document read."""
    for key in (*ODD, *HIDDEN):
        put(f"{s3}/c/{key}", b'{"text": "%s"}\n' % key.encode().replace(b"\\", b"\\\\"))
    objects = list_objects([f"{s3}/c"])
    assert sorted(item.uri for item in objects) == sorted(f"{s3}/c/{key}" for key in ODD)
    for partition in split(objects, 1000, ReadOptions()):
        assert texts([partition]) == [partition.uri.removeprefix(f"{s3}/c/")]


def test_a_folder_that_holds_text_is_named(s3: str, caplog: pytest.LogCaptureFixture) -> None:
    """A key that ends in a slash cannot be opened: with bytes in it, it is told of; an empty one is a mark."""
    put(f"{s3}/c/a.jsonl", b'{"text": "x"}\n')
    put(f"{s3}/c/mark/", b"")
    with caplog.at_level(logging.WARNING, "corpuscore"):
        list_objects([f"{s3}/c"])
        assert not caplog.records
        put(f"{s3}/c/b.jsonl/", b'{"text": "y"}\n')
        assert [item.uri for item in list_objects([f"{s3}/c"])] == [f"{s3}/c/a.jsonl"]
    assert f"1 objects are left out, such as {s3.removeprefix('s3://')}/c/b.jsonl/" in caplog.text.replace("'", "")


def test_only_what_is_gone_has_departed(s3: str) -> None:
    """Objects that a listing did not name are asked for one by one."""
    put(f"{s3}/c/a/../b.jsonl", b"x")
    known = [f"{s3}/c/a/../b.jsonl", f"{s3}/c/gone.jsonl", f"{s3}/c/.hidden.jsonl"]
    departed = find_departed(known, [f"{s3}/c"], [])
    assert departed == known[:2]
    assert confirm_gone(departed, [f"{s3}/c"]) == [f"{s3}/c/gone.jsonl"]
