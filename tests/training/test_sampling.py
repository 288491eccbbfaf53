from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.errors import CorpusError, TrainingError
from corpuscore.training.sampling import choose_pieces, cut, read_texts, variations
from tests.training.conftest import texts


@given(st.text(alphabet="ab .!?\n", max_size=2000), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_text_in_order_and_short(text: str, seed: int) -> None:
    """No word is lost or moved unless a single sentence is longer than a piece may be."""
    pieces = list(cut(text, seed))
    assert all(0 < len(piece) <= 640 for piece in pieces)
    if all(len(piece) < 640 for piece in pieces):
        assert " ".join(pieces).split() == text.split()


def test_a_sample_depends_on_the_seed_and_holds_each_text_once() -> None:
    """Copies and known texts are left out; another seed chooses others."""
    many = [*texts(50), *texts(50)]
    first = choose_pieces(many, 20, seed=1, known=texts(50)[:10])
    assert first == choose_pieces(many, 20, seed=1, known=texts(50)[:10])
    assert first != choose_pieces(many, 20, seed=2, known=texts(50)[:10])
    assert len(set(first)) == 20
    assert not set(first) & set(texts(50)[:10])


def test_variations_are_new_and_the_same_for_the_same_seed() -> None:
    """Varied copies differ from their texts, are made of the same words, and can be made again."""
    originals = texts(40)
    varied = variations(originals, 2, seed=3)
    assert varied == variations(originals, 2, seed=3)
    assert len(set(varied) - set(originals)) > 60
    assert {word for text in varied for word in text.split()} <= {word for text in originals for word in text.split()}
    assert variations(originals, 0, seed=3) == []


def test_texts_come_from_any_corpus_and_the_column_can_be_named(tmp_path: Path) -> None:
    """CSV and Parquet objects are read through the corpus reader, empty texts passed over."""
    (tmp_path / "a.csv").write_text('id,body\n1,"one, two"\n2,\n3,three\n', encoding="utf-8")
    pq.write_table(pa.table({"text": ["four", None, " "]}), tmp_path / "b.parquet")
    assert list(read_texts([f"{tmp_path}/a.csv#body", str(tmp_path / "b.parquet")])) == ["one, two", "three", "four"]
    with pytest.raises(CorpusError):
        list(read_texts([str(tmp_path / "none.parquet")]))
    pq.write_table(pa.table({"text": pa.array([None, ""], pa.string())}), tmp_path / "c.parquet")
    with pytest.raises(TrainingError, match="No text in"):
        list(read_texts([str(tmp_path / "c.parquet")]))
