"""JSON as it is in the wild is read as Python's json module reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.corpus.lenientjson import load_json
from corpuscore.options import ReadOptions
from tests.corpus.reading import put, reasons, rows, texts, whole
from tests.corpus.test_ranges import FEW

KEPT = ReadOptions(id_columns=("id",), keep_columns=("score",))


def test_numbers_that_are_none_stop_no_text(tmp_path: Path) -> None:
    """NaN, infinities and numbers beyond any type, in columns that nobody asked for and in kept ones, as written."""
    values = ["NaN", "Infinity", "-Infinity", "1e999", "-1E+4000", "9" * 400, "[NaN,1.50]", "1.50"]
    lines = [f'{{"id": "{at}", "text": "rain {at}", "score": {value}}}' for at, value in enumerate(values)]
    item = put(tmp_path, "x.jsonl", "\n".join(lines).encode())
    assert texts([whole(item)]) == [f"rain {at}" for at in range(len(values))]
    assert [row["score"] for row in rows([whole(item)], KEPT)][:7] == values[:7]


def test_halves_of_surrogate_pairs_become_the_replacement_character(tmp_path: Path) -> None:
    """In texts, ids and kept columns, beside whole pairs and beside backslashes that only look so."""
    line = rb'{"id": "\udfff", "text": "a\ud800b \ud83d\ude00 \\ud800 \uD83D\ud83d\uDE00", "score": "\ud800"}'
    (row,) = rows([whole(put(tmp_path, "x.jsonl", line))], KEPT)
    assert row["text"] == "a\ufffdb \U0001f600 \\ud800 \ufffd\U0001f600"
    assert (row["document_id"], row["score"]) == ("\ufffd", "\ufffd")


def test_what_is_no_json_stays_a_reject(tmp_path: Path) -> None:
    """Lines that only hold such a word, and bytes that are no UTF-8 beside one."""
    deep = b'{"b": ' + b"[" * 10**5 + b"NaN" + b"]" * 10**5 + b"}"
    broken = [b'{"text": NaNa}', b'{"text": "a", "b": nan}', b'{"text": "NaN', b'{"text": "a\\ud800", "b": }', deep]
    lines = [*broken, b'{"text": "\xff", "b": NaN}', b'{"text": NaN}']
    found = reasons([whole(put(tmp_path, "x.jsonl", b"\n".join(lines)))])
    assert found == [*["broken_json"] * len(broken), "invalid_utf8", "missing_text"]


def test_the_last_of_two_keys_counts(tmp_path: Path) -> None:
    """As in Python, in usual lines and in others; NUL is a character."""
    lines = [b'{"text": "a", "text": "b"}', b'{"text": "a", "b": NaN, "text": "b"}', b'{"text": "\\u0000b"}']
    assert texts([whole(put(tmp_path, "x.jsonl", b"\n".join(lines)))]) == ["b", "b", "\0b"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**63) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def plain(value: object) -> str:
    """A value as text, halves of pairs replaced."""
    return json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@FEW
@given(VALUES)
def test_reads_what_python_writes(value: object) -> None:
    """Whatever json.dumps makes, halves of pairs and NaN included."""
    _, found = load_json(json.dumps(value).encode())
    assert plain(found) == plain(value)


@pytest.mark.parametrize("first", [b"", b"\n"])
def test_a_mark_and_blank_lines_are_no_json(tmp_path: Path, first: bytes) -> None:
    """A byte order mark at the start, and blank lines anywhere."""
    assert texts([whole(put(tmp_path, "x.jsonl", b"\xef\xbb\xbf" + first + b'{"text": "a"}\n\n'))]) == ["a"]
