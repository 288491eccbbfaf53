"""The steps of a distillation, each with JSON-ready arguments and results, each safe to repeat.

    sample_corpus -> teacher_scores -> train_student -> evaluate_against_teacher -> register_model

They meet only in the run's folder (see folder.py); what is done already is found and adopted. The command line runs
the first three in one go, a DAG one a task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from corpuscore.errors import TrainingError
from corpuscore.files import write_whole
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.devices import resolve_device
from corpuscore.scoring.srupp.folder import Storage, save_classifier
from corpuscore.training.folder import claim
from corpuscore.training.labelled import Labelled, read_label_names, read_labelled, write_labelled
from corpuscore.training.limits import check_limits
from corpuscore.training.loop import Progress, Settings, train
from corpuscore.training.metrics import tuned_agreement
from corpuscore.training.registry import put_model
from corpuscore.training.samples import Row, count_sample, read_sample, write_sample
from corpuscore.training.sampling import choose_pieces, read_texts, variations
from corpuscore.training.student import Distillation, Shape, lesson, mixed_targets, new_student
from corpuscore.training.teacher import Scored, read_scores, score_texts

#: Tokens of a text at the most, for the teacher and the student alike; pieces are shorter by far.
MAX_TOKENS = 256


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def sample_corpus(
    folder: str,
    teacher: str,
    texts: Sequence[str],
    labels: str | None = None,
    label_names: str | None = None,
    max_texts: int = 100_000,
    copies: int = 1,
    held_out: float = 0.1,
    seed: int = 1,
) -> dict[str, Any]:
    """Choose the texts of a distillation.

    Args:
        folder: The run's.
        teacher: Whose labels gold labels are read with.
        texts: URIs of unlabelled texts; `#name` at the end names a column other than `text`.
        labels: A labelled file, or None.
        label_names: A file that names the numbers in it; the teacher's order where None.
        max_texts: Pieces of unlabelled texts at the most.
        copies: Varied copies of each labelled text (of each piece, where there is no labelled file).
        held_out: Share of labelled texts (else of pieces) that is kept from training.
        seed: Of all choices.

    Returns:
        Counts: labelled, piece, varied; held, of these.

    Raises:
        CorpusError, ModelError, TrainingError: Something cannot be read or is empty, or other options than before.
    """
    root, path = Path(folder), Path(folder, "texts.parquet")
    options = {
        "teacher": teacher,
        "texts": list(texts),
        "labels": labels,
        "label_names": label_names,
        "max_texts": max_texts,
        "copies": copies,
        "held_out": held_out,
        "seed": seed,
    }
    check_limits(options)
    if not path.exists():
        names = describe_scorer(teacher).labels
        learn, held = _gold(labels, label_names, names).split(held_out)
        pieces = choose_pieces(read_texts(texts), max_texts, seed, known=[*learn.texts, *held.texts])
        kept = 0 if labels else max(round(len(pieces) * held_out), 1)
        if not learn.texts and len(pieces) <= kept:
            raise TrainingError(
                "There are no texts to learn from",
                rule="a student learns from labelled texts, from pieces of others, or from both",
                next_step="give more with --texts or --labels",
            )
        rows: list[Row] = [
            *(("labelled", False, text, row) for text, row in zip(learn.texts, learn.gold_DL, strict=True)),
            *(("labelled", True, text, row) for text, row in zip(held.texts, held.gold_DL, strict=True)),
            *(("piece", number < kept, text, None) for number, text in enumerate(pieces)),
            *(("varied", False, text, None) for text in variations(learn.texts or pieces[kept:], copies, seed)),
        ]
        claim(root, "sample", options)
        write_labelled(held, root / "held-out.tsv")
        write_sample(path, rows)
    claim(root, "sample", options)
    return count_sample(path)


def _gold(labels: str | None, label_names: str | None, names: tuple[str, ...]) -> Labelled:
    if labels is None:
        return Labelled((), np.zeros((0, len(names)), dtype=bool), names)
    return read_labelled(labels, names, read_label_names(label_names) if label_names else None)


def teacher_scores(
    folder: str, teacher: str, device: str = "auto", max_tokens: int = MAX_TOKENS, progress: Scored = quiet
) -> dict[str, Any]:
    """Score the sampled texts with the teacher.

    Raises:
        ModelError, TrainingError: See `score_texts`.
    """
    root = Path(folder)
    info = describe_scorer(teacher, device=device)
    texts = read_sample(root, len(info.labels)).texts
    score_texts(teacher, texts, root / "teacher", device=device, max_tokens=max_tokens, progress=progress)
    return {"texts": len(texts), "teacher": info.to_json()}


def train_student(
    folder: str,
    teacher: str,
    shape: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    gold_share: float = 0.5,
    storage: Storage = "int8",
    device: str = "auto",
    max_tokens: int = MAX_TOKENS,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train a student on the teacher's scores, from the newest checkpoint where there is one.

    Args:
        folder: The run's, after sample_corpus and teacher_scores.
        teacher: Whose labels, vocabulary and embeddings the student takes over.
        shape: Of the student, see Shape; its defaults where left out.
        settings: Of the training, see Settings.
        gold_share: How far targets of labelled texts move from the teacher's scores to the gold labels, 0 to 1.
        storage: How weights are saved: fp32, fp16 or int8.
        device: auto, cpu or cuda.
        max_tokens: Longer texts are cut.
        progress: Called after each step and epoch.

    Returns:
        The model's folder, the metrics of the epoch that was kept, and those of all.

    Raises:
        TrainingError: Other options than before, scores missing, or a loss that is not a number.
    """
    root, size, pace = Path(folder), Shape(**(shape or {})), Settings(**(settings or {}))
    options = {"teacher": teacher, "gold_share": gold_share, "max_tokens": max_tokens}
    check_limits({**options, **asdict(size), **asdict(pace)})
    info = describe_scorer(teacher, device=device)
    sample = read_sample(root, len(info.labels))
    scores_DL = read_scores(root / "teacher", len(sample.texts))
    claim(root, "train", {**options, "shape": asdict(size), "settings": asdict(pace)})
    finite_D = np.isfinite(scores_DL).all(axis=1)
    learn, held = sample.take(~sample.held_D & finite_D), sample.take(sample.held_D & finite_D)
    model, tokenizer = new_student(teacher, learn.texts, info.labels, info.activation, size, pace.seed)
    target_DL = mixed_targets(
        scores_DL[~sample.held_D & finite_D], learn.gold_DL, learn.has_gold_D, gold_share, info.activation
    )
    held_gold_DL = held.gold_DL if held.has_gold_D.any() else None
    task = Distillation(
        model,
        lesson(tokenizer, learn.texts, target_DL, max_tokens),
        lesson(tokenizer, held.texts, scores_DL[sample.held_D & finite_D], max_tokens, held_gold_DL),
        unknown=tokenizer.token_to_id("[UNK]") or 0,
        word_dropout=size.word_dropout,
        device=resolve_device(device),
        batch_tokens=pace.batch_tokens,
    )
    outcome = train(task, pace, root / "checkpoints", progress)
    write_whole(root / "history.json", (json.dumps(outcome.history, indent=1) + "\n").encode())
    save_classifier(root / "model", model, tokenizer, storage)
    return {"model": str(root / "model"), "best": dict(outcome.best), "history": outcome.history}


def evaluate_against_teacher(folder: str, teacher: str, device: str = "auto") -> dict[str, Any]:
    """Compare the finished student with its teacher on the held-out texts.

    Returns:
        mean_difference of scores; texts; and, where there are gold labels, macro_f1 of the student (thresholds tuned on
        the very texts, so both are flattered alike) and of the teacher (which may have seen them in its own training).

    Raises:
        TrainingError, ModelError: There is no student yet, or it cannot be used.
    """
    root = Path(folder)
    student = load_scorer(str(root / "model"), device=device, max_tokens=MAX_TOKENS)
    sample = read_sample(root, len(student.info.labels))
    held = sample.take(sample.held_D)
    scores = {
        "student": student.score(held.texts),
        "teacher": np.nan_to_num(read_scores(root / "teacher", len(sample.texts))[sample.held_D]),
    }
    found: dict[str, Any] = {
        "texts": len(held.texts),
        "teacher": describe_scorer(teacher, device=device).to_json(),
        "student": student.info.to_json(),
        "mean_difference": float(np.abs(scores["student"] - scores["teacher"]).mean()),
    }
    if held.has_gold_D.any():
        for name, scores_DL in scores.items():
            found[f"{name}_macro_f1"] = tuned_agreement(scores_DL, held.gold_DL, student.info.activation).macro_f1
    return found


def register_model(folder: str, into: str) -> dict[str, Any]:
    """Put a run's model where it is used from, in one step; what was there before is `<name>.previous`.

    Args:
        folder: The run's, after train_student.
        into: The model's own folder, such as /models/emotion.

    Raises:
        TrainingError: The place cannot be written, or holds something that is no model.
        ModelError: The run has no model that can be used.
    """
    info = describe_scorer(str(Path(folder) / "model"))
    place = Path(into)
    if place.exists() and not (place / "config.json").exists():
        raise TrainingError(
            f"{place} is there and is no model", rule="only a model is replaced", next_step="give another place"
        )
    try:
        put_model(Path(folder) / "model", place, info.fingerprint)
    except OSError as error:
        raise TrainingError(
            f"{place} cannot be written: {error}",
            rule="a model is copied where it is used from",
            next_step="give another place",
        ) from error
    return {"model": str(place), "fingerprint": info.fingerprint, "labels": list(info.labels)}
