"""Compressed objects are known by what they begin with, read frame by frame, and refused by name where that fails."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import botocore.session
import pytest
import zstandard

from corpuscore.corpus import list_objects, split
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.bombs import MIB
from tests.corpus.measured import measured
from tests.corpus.reading import put, rows, texts, whole

PLAIN = b"".join(b'{"text": "line %d"}\n' % number for number in range(2000))
LINES = [f"line {number}" for number in range(2000)]


def zipped(*names: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files with these names, which all hold the same."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("/") else PLAIN)
    return sink.getvalue()


def zstd_long(window_log: int) -> bytes:
    """A frame with a long window that does not say how long its content is, as `zstd --long` writes from a pipe."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    squeeze = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return squeeze.compress(PLAIN) + squeeze.flush()


HALF = len(PLAIN) // 2
SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0note"
BODIES: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(PLAIN),
    "gzip members": lambda: gzip.compress(PLAIN[:HALF]) + gzip.compress(b"") + gzip.compress(PLAIN[HALF:]),
    "gzip and zeros": lambda: gzip.compress(PLAIN) + b"\0" * 70_000,
    "zstd": lambda: zstandard.compress(PLAIN),
    "zstd frames": lambda: SKIPPED + zstandard.compress(PLAIN[:HALF]) + SKIPPED + zstandard.compress(PLAIN[HALF:]),
    "zstd --long=31": lambda: zstd_long(31),
    "bzip2": lambda: bz2.compress(PLAIN[:HALF]) + bz2.compress(PLAIN[HALF:]),
    "xz": lambda: lzma.compress(PLAIN[:HALF]) + lzma.compress(PLAIN[HALF:]) + b"\0" * 8,
    "zip": lambda: zipped("inner.jsonl"),
    "zip from a Mac": lambda: zipped("folder/", "folder/inner.jsonl", "__MACOSX/._inner.jsonl"),
    "zip stored": lambda: zipped("inner.jsonl", method=zipfile.ZIP_STORED),
}
ENDINGS = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz", "zip": ".zip"}


@pytest.mark.parametrize("name", BODIES)
def test_reads_what_others_compress(tmp_path: Path, name: str) -> None:
    """In all their forms, under the right name, under another's and under none: content decides."""
    body = BODIES[name]()
    for ending in (ENDINGS[name.split()[0]], ".gz", ""):
        item = put(tmp_path, f"x.jsonl{ending}", body)
        parts = list(split([item], 100, ReadOptions()))
        assert [part.kind for part in parts] == ["whole"]
        assert texts(parts) == LINES


def test_a_large_object_without_an_ending_is_not_cut(tmp_path: Path) -> None:
    """The plan looks at what an object begins with before it cuts it."""
    body = gzip.compress(PLAIN, 0) * 10
    parts = list(split([put(tmp_path, "x.jsonl", body)], 100, ReadOptions()))
    assert len(body) > 2**18
    assert [part.kind for part in parts] == ["whole"]
    assert texts(parts) == LINES * 10


def test_gzip_by_content_encoding(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of S3 that its metadata call gzip, and not its name, at the version that was planned."""
    bucket = s3.removeprefix("s3://").split("/")[0]
    store = botocore.session.get_session().create_client("s3")
    store.put_object(Bucket=bucket, Key="x.jsonl", Body=gzip.compress(PLAIN), ContentEncoding="gzip")
    assert texts(split(list_objects([f"s3://{bucket}/x.jsonl"]), 100, ReadOptions())) == LINES


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz", ".zip", ""])
def test_an_object_of_no_bytes_has_no_documents(tmp_path: Path, ending: str) -> None:
    """Whatever its name says."""
    for name in ("x.jsonl", "x.csv", "x.txt"):
        assert rows([whole(put(tmp_path, name + ending, b""))]) == []


BROKEN = {
    "cut.gz": (gzip.compress(PLAIN)[:-9], "ends early"),
    "cut.zst": (zstandard.compress(PLAIN)[:-9], "ends early"),
    "cut.bz2": (bz2.compress(PLAIN)[:-9], "ends early"),
    "cut.xz": (lzma.compress(PLAIN)[:-9], "ends early"),
    "cut.zip": (zipped("a.jsonl")[:-9], "not a zip file"),
    "behind.gz": (gzip.compress(PLAIN) + b"\0\0more", "something else behind the zeros"),
    "flipped.gz": (gzip.compress(PLAIN)[:-6] + b"\1" * 6, "incorrect data check"),
    "flipped.xz": (lzma.compress(PLAIN)[:100] + b"\1" * 20 + lzma.compress(PLAIN)[120:], "orrupt"),
    "flipped.bz2": (bz2.compress(PLAIN)[:100] + b"\1" * 20 + bz2.compress(PLAIN)[120:], "nvalid data"),
    "two.zip": (zipped("a.jsonl", "b.jsonl"), "a zip of 2 files ('a.jsonl', 'b.jsonl')"),
    "none.zip": (zipped("folder/"), "a zip of 0 files"),
    "listed.zip": (zipped(*(f"{number:0>60}" for number in range(12_000))), "list of members"),
    "plain.bz2": (PLAIN, "its name says bzip2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(tmp_path: Path, name: str) -> None:
    """The object, what is wrong with it, and what to do."""
    body, message = BROKEN[name]
    item = put(tmp_path, name.replace(".", ".jsonl."), body)
    with pytest.raises(CorpusError, match="cannot be read: .*Next: ") as caught:
        rows([whole(item)])
    assert message in str(caught.value)


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    """A dictionary beyond 256 MiB is refused before any of it is taken."""
    header = b"\x02\0\x21\x01\x20\0\0\0"  # LZMA2 with a dictionary of 256 MiB
    body = bytearray(lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**16}]))
    at = body.index(b"\x02\0\x21\x01")
    largest = header.replace(b"\x20", b"\x28")  # 4 GiB
    body[at : at + len(header)] = largest
    body[at + 8 : at + 12] = lzma_crc(bytes(body[at : at + 8]))
    with pytest.raises(CorpusError, match=r"xz: Memory usage limit exceeded"):
        rows([whole(put(tmp_path, "x.jsonl.xz", bytes(body)))])


def lzma_crc(header: bytes) -> bytes:
    """As the header of a block has it."""
    import zlib

    return zlib.crc32(header).to_bytes(4, "little")


@pytest.mark.parametrize("name", ["x.txt.bz2", "x.txt.xz"])
def test_memory_is_bounded(tmp_path: Path, name: str) -> None:
    """A few kilobytes that stand for 64 MB take next to nothing, and are one reject."""
    squeeze = bz2.BZ2Compressor(1) if name.endswith("2") else lzma.LZMACompressor(preset=0)
    body = b"".join([*(squeeze.compress(b"a" * MIB) for _ in range(64)), squeeze.flush()])
    (tmp_path / name).write_bytes(body)
    found = measured(tmp_path / name)
    assert found.reasons == {"too_large": 1}
    assert found.peak_mib < 60
