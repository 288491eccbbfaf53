"""A student: a small SRU++ classifier that learns to say what a teacher says.

Shape suffixes: D documents, L labels, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from corpuscore.errors import JobError
from corpuscore.records import Activation
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.tokenizer import TextTokenizer
from corpuscore.training.batches import Rows, pack
from corpuscore.training.metrics import brier, tuned_agreement
from corpuscore.training.vocabulary import cut_vocabulary, initial_embeddings, teacher_embeddings

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a student, and what is dropped while it learns.

    Attributes:
        vocabulary: Entries at the most, symbols not counted.
        embedding: Features of an embedding.
        hidden: Channels of a direction.
        projection: Features of the projected attention.
        layers: SRU++ layers, all bidirectional.
        attention_layers: The last so many have attention.
        dropout: Inside the encoder.
        head_dropout: Of embeddings and of the pooled vector.
        word_dropout: Share of tokens that a step replaces by the unknown one.
    """

    vocabulary: int = 20_000
    embedding: int = 384
    hidden: int = 192
    projection: int = 96
    layers: int = 2
    attention_layers: int = 1
    dropout: float = 0.1
    head_dropout: float = 0.2
    word_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.attention_layers > self.layers:
            raise JobError(
                f"attention-layers={self.attention_layers} of layers={self.layers}",
                rule="attention is in the last layers, in all of them at the most",
                next_step="give fewer",
            )


@dataclass(frozen=True, slots=True)
class Lesson:
    """Texts as a student sees them.

    Attributes:
        ids_T, offsets: Tokens end to end; document d is ids_T[offsets[d]:offsets[d + 1]].
        target_DL: Probabilities to learn.
        gold_DL: Gold labels of held-out documents, or None where there are none.
    """

    ids_T: npt.NDArray[np.int64]
    offsets: Rows
    target_DL: Floats
    gold_DL: npt.NDArray[np.bool_] | None = None

    @property
    def lengths_D(self) -> Rows:  # noqa: N802  (a shape suffix)
        """Tokens a document."""
        return np.diff(self.offsets)

    def tokens(self, documents: Rows) -> tuple[Tensor, Tensor]:
        """Ids and offsets of some documents."""
        pieces = [self.ids_T[self.offsets[d] : self.offsets[d + 1]] for d in documents]
        offsets = np.concatenate([[0], np.cumsum(self.lengths_D[documents])])
        return torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(offsets)


def new_student(
    teacher: str, texts: Sequence[str], labels: tuple[str, ...], activation: Activation, shape: Shape, seed: int
) -> tuple[SRUppClassifier, Tokenizer]:
    """A student whose vocabulary and embeddings come from the teacher; everything else starts at random.

    Raises:
        ModelError: The teacher cannot be read.
        TrainingError: Its tokenizer is no WordPiece.
    """
    checkpoint = find_checkpoint(teacher)
    vocabulary = cut_vocabulary(checkpoint.tokenizer().rust, texts, shape.vocabulary)
    torch.manual_seed(seed)
    model = SRUppClassifier(
        SRUppConfig(
            vocab_size=len(vocabulary),
            labels=labels,
            problem_type="multi_label_classification" if activation == "sigmoid" else "single_label_classification",
            embedding_size=shape.embedding,
            hidden_size=shape.hidden,
            proj_size=shape.projection,
            num_layers=shape.layers,
            attention_last_n_layers=shape.attention_layers,
            highway_bias=-1.0,
            layer_norm=False,
            dropout=shape.dropout,
            head_dropout=shape.head_dropout,
        )
    )
    known = teacher_embeddings(checkpoint.folder)
    start = initial_embeddings(vocabulary, known, shape.embedding, torch.Generator().manual_seed(seed))
    model.embedding = nn.Embedding(len(vocabulary), shape.embedding, sparse=True, _weight=start)
    return model, vocabulary.tokenizer


def lesson(
    tokenizer: Tokenizer, texts: Sequence[str], target_DL: Floats, max_tokens: int, gold_DL: Any = None
) -> Lesson:
    """Tokenize texts as the scorer will, each cut to `max_tokens`."""
    tokens = TextTokenizer.from_rust(tokenizer).encode(texts, max_tokens)
    return Lesson(tokens.ids.astype(np.int64), tokens.offsets, target_DL, gold_DL)


class Distillation:
    """Cross-entropy of a student's scores against targets that mix a teacher's scores with gold labels."""

    def __init__(
        self,
        module: SRUppClassifier,
        learn: Lesson,
        held: Lesson,
        *,
        unknown: int,
        word_dropout: float,
        device: str,
        batch_tokens: int,
    ) -> None:
        self.module: nn.Module = module.to(device)
        self.activation: Activation = module.config.activation
        self.learn, self.held, self.device, self.batch_tokens = learn, held, device, batch_tokens
        self.unknown, self.word_dropout = unknown, word_dropout
        self.lengths_D, self.padded = learn.lengths_D, False

    def loss(self, documents: Rows) -> Tensor:
        """Mean over documents of the sum over labels."""
        ids_T, offsets = self.learn.tokens(documents)
        ids_T = torch.where(torch.rand(len(ids_T)) < self.word_dropout, self.unknown, ids_T).to(self.device)
        target_DL = torch.from_numpy(self.learn.target_DL[documents]).to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
            logits_DL = self.module(ids_T, offsets).float()
        return _divergence(logits_DL, target_DL, self.activation)

    def measure(self, module: nn.Module) -> Mapping[str, float]:
        """Held-out loss against the targets, and agreement with gold labels where there are some."""
        scores_DL, loss = self._score(module)
        if self.held.gold_DL is None:
            return {"held_loss": loss, "score": -loss}
        gold_DL = self.held.gold_DL
        found = tuned_agreement(scores_DL, gold_DL, self.activation)
        metrics = {
            "held_loss": loss,
            "brier": brier(scores_DL, gold_DL),
            "macro_f1": found.macro_f1,
            "micro_f1": found.micro_f1,
        }
        return {**metrics, "score": found.macro_f1}

    @torch.inference_mode()
    def _score(self, module: nn.Module) -> tuple[Floats, float]:
        order = np.argsort(self.held.lengths_D, kind="stable")
        scores_DL, total = np.zeros_like(self.held.target_DL), 0.0
        for documents in pack(self.held.lengths_D, order, self.batch_tokens, padded=False):
            ids_T, offsets = self.held.tokens(documents)
            logits_DL = module(ids_T.to(self.device), offsets).float().cpu()
            target_DL = torch.from_numpy(self.held.target_DL[documents])
            total += _divergence(logits_DL, target_DL, self.activation).item() * len(documents)
            scores = logits_DL.sigmoid() if self.activation == "sigmoid" else logits_DL.softmax(dim=1)
            scores_DL[documents] = scores.numpy()
        return scores_DL, total / max(len(scores_DL), 1)


def _divergence(logits_DL: Tensor, target_DL: Tensor, activation: Activation) -> Tensor:
    if activation == "sigmoid":
        return functional.binary_cross_entropy_with_logits(logits_DL, target_DL, reduction="sum") / len(logits_DL)
    return functional.cross_entropy(logits_DL, target_DL)


def mixed_targets(
    teacher_DL: Floats,
    gold_DL: npt.NDArray[np.bool_],
    has_gold_D: npt.NDArray[np.bool_],
    share: float,
    activation: Activation,
) -> Floats:
    """The teacher's scores, moved towards gold labels by `share` in the documents that have some.

    A teacher that was trained on these very labels is too sure of them; on others' texts it is all there is.
    """
    gold = gold_DL.astype(np.float32)
    if activation == "softmax":  # several gold labels share one distribution
        gold = gold / np.maximum(gold.sum(axis=1, keepdims=True), 1)
    weight_D1 = np.where(has_gold_D, np.float32(share), np.float32(0))[:, None]
    return (weight_D1 * gold + (1 - weight_D1) * teacher_DL).astype(np.float32)
