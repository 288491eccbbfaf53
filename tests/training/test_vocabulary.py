from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.errors import TrainingError
from corpuscore.training.vocabulary import cut_vocabulary, initial_embeddings
from tests.scoring.checkpoints import SAMPLE, bytelevel, wordpiece

SIZE = 120


def test_entries_are_the_teachers_and_ids_fit() -> None:
    """Each entry knows its teacher's id, special tokens frame a text, and symbols that were seen come in new."""
    texts = [*SAMPLE, "so glad 😀", "glad 😀 😀", "😀"]
    teacher = wordpiece()
    found = cut_vocabulary(teacher, texts, SIZE)
    words = found.tokenizer.get_vocab()
    assert sorted(words.values()) == list(range(len(found)))
    for word, number in words.items():
        assert found.teacher_V[number] == (teacher.token_to_id(word) if teacher.token_to_id(word) is not None else -1)
    tokens = found.tokenizer.encode("glad 😀").tokens
    assert tokens[0] == "[CLS]"
    assert tokens[-2:] == ["😀", "[SEP]"]


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz .!?", max_size=60))
@settings(max_examples=50, deadline=None)
def test_a_full_vocabulary_reads_as_the_teacher_does(text: str) -> None:
    """With room for all pieces, tokens are the teacher's."""
    teacher = wordpiece()
    found = cut_vocabulary(teacher, SAMPLE, teacher.get_vocab_size())
    assert found.tokenizer.encode(text).tokens == teacher.encode(text).tokens


def test_other_tokenizers_and_tiny_sizes_are_refused() -> None:
    """Only WordPiece can be cut, and not below its letters."""
    with pytest.raises(TrainingError, match="BPE"):
        cut_vocabulary(bytelevel(), SAMPLE, SIZE)
    with pytest.raises(TrainingError, match="too small"):
        cut_vocabulary(wordpiece(), SAMPLE, 10)


@pytest.mark.parametrize("features", [8, 16, 24])
def test_embeddings_keep_what_the_teacher_knew(features: int) -> None:
    """Wider students keep all distances between the teacher's embeddings, narrower ones the largest axes."""
    found = cut_vocabulary(wordpiece(), SAMPLE, SIZE)
    theirs = torch.randn(wordpiece().get_vocab_size(), 16) * torch.linspace(2, 0.1, 16)
    ours = initial_embeddings(found, theirs, features, torch.Generator().manual_seed(1))
    assert ours.shape == (len(found), features)
    kept = torch.tensor(found.teacher_V) >= 0
    near = torch.pdist(theirs[torch.tensor(found.teacher_V)[kept]])
    distances = torch.pdist(ours[kept][:, :16])
    assert torch.corrcoef(torch.stack([near, distances]))[0, 1] > 0.95
