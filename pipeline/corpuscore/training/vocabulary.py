"""A student's vocabulary: the teacher's WordPiece, cut to what the texts use, plus the symbols that it lacks.

Pieces that stay keep the teacher's embedding. Emoji, which carry emotion and are unknown to most English vocabularies,
come in new.

Shape suffixes: V entries of the student's vocabulary, E features of an embedding.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpuscore.errors import TrainingError
from corpuscore.scoring.tensors import read_tensors

#: A symbol that is seen less often is not worth an entry.
_FEWEST_SYMBOLS = 3
#: Unicode categories of emoji and other pictures.
_SYMBOLS = ("So", "Sk")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer and where its entries come from.

    Attributes:
        tokenizer: Ready to save.
        teacher_V: The teacher's id of each entry, -1 where it has none.
    """

    tokenizer: Tokenizer
    teacher_V: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.teacher_V)


def cut_vocabulary(teacher: Tokenizer, texts: Iterable[str], size: int) -> Vocabulary:
    """Keep the pieces that the texts use most, and all single letters, so that every word can still be spelt.

    Args:
        teacher: A WordPiece tokenizer.
        texts: What the student will be trained on.
        size: Entries at the most, symbols not counted.

    Raises:
        TrainingError: The tokenizer is no WordPiece, or the size is too small for its letters.
    """
    state = json.loads(teacher.to_str())
    if (state["model"] or {}).get("type") != "WordPiece":
        raise TrainingError(
            f"The teacher's tokenizer is a {(state['model'] or {}).get('type')}",
            rule="a student's vocabulary is cut from a WordPiece vocabulary (BERT, DistilBERT, ELECTRA, MiniLM)",
            next_step="distil from a teacher of that kind",
        )
    pieces: dict[str, int] = state["model"]["vocab"]
    special = {token["content"] for token in state["added_tokens"]}
    texts = list(texts)
    kept = _most_used(teacher, texts, pieces, special, size)
    symbols = _symbols(texts, pieces)
    entries = [*kept, *symbols, *(f"##{symbol}" for symbol in symbols)]
    return Vocabulary(_with_entries(state, entries), tuple(pieces.get(entry, -1) for entry in entries))


def _most_used(teacher: Tokenizer, texts: list[str], pieces: dict[str, int], special: set[str], size: int) -> list[str]:
    """Entries in the teacher's order."""
    spelling = {
        piece for piece in pieces if piece in special or (len(piece.removeprefix("##")) == 1 and piece[-1].isascii())
    }
    if size < len(spelling):
        raise TrainingError(
            f"A vocabulary of {size} entries is too small",
            rule=f"{len(spelling)} go to letters and special tokens",
            next_step="ask for more",
        )
    counts: Counter[str] = Counter()
    for encoding in teacher.encode_batch_fast(texts, add_special_tokens=False):
        counts.update(encoding.tokens)
    by_use = [piece for piece, _ in counts.most_common()]
    rest = sorted(pieces, key=pieces.__getitem__)
    chosen = list(dict.fromkeys([*sorted(spelling), *by_use, *rest]))[:size]
    return sorted((piece for piece in chosen if piece in pieces), key=pieces.__getitem__)


def _symbols(texts: list[str], pieces: dict[str, int]) -> list[str]:
    counts = Counter(letter for text in texts for letter in text if ord(letter) > 127)
    seen = (letter for letter, count in counts.most_common() if count >= _FEWEST_SYMBOLS)
    return [letter for letter in seen if letter not in pieces and unicodedata.category(letter) in _SYMBOLS]


def _with_entries(state: dict[str, Any], entries: Sequence[str]) -> Tokenizer:
    """The same tokenizer with other entries; ids of special tokens are put right wherever they are written."""
    number = {entry: index for index, entry in enumerate(entries)}
    state["model"]["vocab"] = number
    state["added_tokens"] = [{**token, "id": number[token["content"]]} for token in state["added_tokens"]]
    state["truncation"] = state["padding"] = None
    processor = state.get("post_processor") or {}
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [number[name] for name in token["tokens"]]
    for role in ("cls", "sep"):
        if role in processor:
            processor[role] = [processor[role][0], number[processor[role][0]]]
    return Tokenizer.from_str(json.dumps(state))


def teacher_embeddings(folder: Path) -> Tensor | None:
    """The teacher's word embeddings, fp32 [entries, features], or None where it keeps none under a known name."""
    for path in sorted(folder.glob("*.safetensors")):
        for _, array in read_tensors(path, lambda name: name.endswith("word_embeddings.weight")):
            return torch.from_numpy(array.astype(np.float32))
    return None


def initial_embeddings(
    vocabulary: Vocabulary, teacher: Tensor | None, features: int, generator: torch.Generator
) -> Tensor:
    """Embeddings to start from, fp32 [V, features], of unit variance.

    The teacher's are centred, and turned onto their principal axes where the student is narrower; entries without a
    teacher's, and features beyond its own, start at random.
    """
    start_VE = torch.randn(len(vocabulary), features, generator=generator) / 2
    if teacher is None:
        return start_VE
    rows = torch.tensor(vocabulary.teacher_V)
    known_VE = teacher[rows.clamp(min=0)]
    known_VE = known_VE - known_VE[rows >= 0].mean(dim=0)
    if features < teacher.shape[1]:
        _, axes = torch.linalg.eigh(known_VE[rows >= 0].T @ known_VE[rows >= 0])
        known_VE = known_VE @ axes.flip(1)[:, :features]
    width = known_VE.shape[1]
    known_VE = known_VE / known_VE[rows >= 0].std()
    start_VE[rows >= 0, :width] = known_VE[rows >= 0]
    return start_VE
