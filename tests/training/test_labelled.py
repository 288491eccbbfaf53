from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.errors import TrainingError
from corpuscore.training.labelled import Labelled, read_label_names, read_labelled, write_labelled
from tests.training.conftest import texts

LABELS = ("joy", "fear", "calm")


def test_tsv_and_parquet_say_the_same(tmp_path: Path) -> None:
    """Numbers in a tab-separated file, and names in Parquet, become the same table."""
    tsv, parquet = tmp_path / "a.tsv", tmp_path / "a.parquet"
    tsv.write_text('one "quoted\t0,2\tx\ntwo\t1\ty\nthree\t\tz\n', encoding="utf-8")
    rows = {"text": ['one "quoted', "two", "three"], "labels": [["joy", "calm"], ["fear"], []]}
    pq.write_table(pa.table(rows), parquet)
    first, second = read_labelled(str(tsv), LABELS), read_labelled(str(parquet), LABELS)
    assert first.texts == second.texts
    np.testing.assert_array_equal(first.gold_DL, second.gold_DL)
    np.testing.assert_array_equal(first.gold_DL, [[1, 0, 1], [0, 1, 0], [0, 0, 0]])


def test_names_give_numbers_their_meaning(tmp_path: Path) -> None:
    """A file of names reorders columns to the model's labels."""
    (tmp_path / "names.txt").write_text("calm\njoy\nfear\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text("one\t0\n", encoding="utf-8")
    found = read_labelled(str(tmp_path / "a.tsv"), LABELS, read_label_names(str(tmp_path / "names.txt")))
    np.testing.assert_array_equal(found.gold_DL, [[0, 0, 1]])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("one\t7\n", "row 1: unknown label '7'"),
        ("one\tanger\n", "unknown label 'anger'"),
        ("one\t0\nno tab here\n", "row 2 has 1 columns"),
        ("\n", "holds no documents"),
    ],
)
def test_a_bad_file_is_refused_with_the_row_and_the_rule(tmp_path: Path, body: str, said: str) -> None:
    """Unknown labels, missing columns and empty files name the place and what would be right."""
    (tmp_path / "a.tsv").write_text(body, encoding="utf-8")
    with pytest.raises(TrainingError, match=said):
        read_labelled(str(tmp_path / "a.tsv"), LABELS)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A missing file, and a Parquet file without the columns, say so."""
    with pytest.raises(TrainingError, match="cannot be read"):
        read_labelled(str(tmp_path / "none.tsv"), LABELS)
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(TrainingError, match="columns text and labels"):
        read_labelled(str(tmp_path / "a.parquet"), LABELS)


def test_a_split_depends_on_texts_alone() -> None:
    """Order does not matter, copies stay together, and nothing is lost."""
    words = texts(400)
    gold = np.arange(400 * 3).reshape(400, 3) % 2 == 0
    rest, held = Labelled(tuple(words), gold, LABELS).split(0.2)
    assert 40 < len(held) < 130
    assert sorted(rest.texts + held.texts) == sorted(words)
    _, again = Labelled(tuple(reversed(words)), gold[::-1], LABELS).split(0.2)
    assert set(again.texts) == set(held.texts)


def test_written_and_read_again_is_the_same(tmp_path: Path) -> None:
    """The held-out file of a run can be given to `evaluate --tune`."""
    before = Labelled(("a b", "c\td", ""), np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=bool), LABELS)
    write_labelled(before, tmp_path / "held.tsv")
    after = read_labelled(str(tmp_path / "held.tsv"), LABELS)
    assert after.texts == ("a b", "c d", "")
    np.testing.assert_array_equal(after.gold_DL, before.gold_DL)
