"""Objects in other encodings than UTF-8: the same texts, whole and in ranges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpuscore.corpus import DocumentReader, split
from corpuscore.corpus.encodings import is_cuttable
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, ranges, rows, texts, whole

WORDS = ["één", "naïve café", '5" pipe', "ümläut, fin"]
TABLE = list(enumerate(WORDS))
CONTENTS = {
    "x.jsonl": "".join(json.dumps({"id": str(at), "text": text}, ensure_ascii=False) + "\n" for at, text in TABLE),
    "x.csv": "id,text\r\n" + "".join('{},"{}"\r\n'.format(at, text.replace('"', '""')) for at, text in TABLE),
    "x.txt": "\n\n".join(WORDS),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_reads_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    """With and without byte order marks, which say by themselves what they are."""
    item = put(tmp_path, name, CONTENTS[name].encode(encoding))
    assert texts([whole(item)], ReadOptions(encoding=encoding.removesuffix("-sig"))) == WORDS
    if encoding in {"utf-16", "utf-32"}:
        assert texts([whole(item)]) == WORDS


@pytest.mark.parametrize("name", CONTENTS)
def test_ranges_of_an_encoding_are_the_whole(tmp_path: Path, name: str) -> None:
    """Where all bytes of ASCII are ASCII an object is cut as in UTF-8."""
    item = put(tmp_path, name, CONTENTS[name].encode("cp1252"))
    reading = ReadOptions(encoding="cp1252")
    found = rows([whole(item)], reading)
    for edge in range(10, item.size_bytes, 3):
        assert rows(ranges(item, [edge]), reading) == found


@pytest.mark.parametrize("name", CONTENTS)
def test_what_cannot_be_cut_is_one_partition(tmp_path: Path, name: str) -> None:
    """By its mark, without any option, and by the option."""
    head, _, rest = CONTENTS[name].partition("\n" if name == "x.csv" else "\0")
    body = (head + "\n" * bool(rest) + (rest or head) * 4000).encode("utf-16")
    item = put(tmp_path, name, body)
    for reading in (ReadOptions(), ReadOptions(encoding="utf-16")):
        assert [part.kind for part in split([item], 100, reading)] == ["whole"]
    assert len(texts([whole(item)])) > 10_000


def test_encodings_are_told_apart() -> None:
    """Whether bytes below 128 may be part of other characters."""
    assert all(map(is_cuttable, ["utf-8", "latin-1", "cp1252", "koi8-r", "euc-kr", "iso8859-15"]))
    assert not any(map(is_cuttable, ["utf-16", "utf-32-be", "utf-7", "shift_jis", "gb18030", "big5", "cp037", "hz"]))


def test_shift_jis_is_read(tmp_path: Path) -> None:
    """An encoding in which a backslash may be half a character."""
    body = CONTENTS["x.csv"].replace("één", "表ソ").encode("shift_jis", "replace")
    assert texts([whole(put(tmp_path, "x.csv", body))], ReadOptions(encoding="shift_jis"))[0] == "表ソ"


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    """A byte that an encoding lacks is a reject of its record; in UTF-16 it becomes U+FFFD, and is counted."""
    item = put(tmp_path, "x.csv", b"id,text\n1,\x81\n2,caf\xe9\n")
    found = rows([whole(item)], ReadOptions(encoding="cp1252"))
    assert [(row["text"], row["reason"]) for row in found] == [(None, "invalid_encoding"), ("café", None)]
    item = put(tmp_path, "x.txt", "a".encode("utf-16") + b"\x00\xd8" + "b".encode("utf-16-le"))
    with DocumentReader(whole(item), ReadOptions()) as reader:
        (batch,) = list(reader)
    assert batch.column("text").to_pylist() == ["a\ufffdb"]
    assert reader.counts.oddities.found["encoding"].count == 1
    with pytest.raises(CorpusError, match="the header line is not CP1252"):
        rows([whole(put(tmp_path, "y.csv", b"id,te\x81xt\n1,x\n"))], ReadOptions(encoding="cp1252"))
