"""The folder of a training run: what it was started with, and small files that are written whole or not at all.

options-STAGE.json      what a stage was started with; it goes on with the same only
texts.parquet           sample: text, kind, labels, held
held-out.tsv            sample: the labelled texts that are kept from training
teacher/scores-N.npy    scores: the teacher's, 4,096 texts a file
checkpoints/            train
history.json            train: metrics of every epoch
model/                  train: the result
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from corpuscore.errors import TrainingError
from corpuscore.files import write_whole


def claim(folder: Path, stage: str, options: dict[str, Any]) -> None:
    """Note what a stage is started with, or check that it is what it was started with before.

    Raises:
        TrainingError: The folder belongs to a run with other options, or cannot be written.
    """
    path, wanted = folder / f"options-{stage}.json", json.loads(json.dumps(options))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if before is None:
            write_whole(path, (json.dumps(wanted, indent=2, sort_keys=True) + "\n").encode())
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be used: {error}",
            rule="a run needs a folder that it can write",
            next_step="give another with --into",
        ) from error
    if before is not None and before != wanted:
        changed = sorted(key for key in {*before, *wanted} if before.get(key) != wanted.get(key))
        was = "; ".join(f"{key} was {before.get(key)!r}, now {wanted.get(key)!r}" for key in changed)
        raise TrainingError(
            f"{folder} holds a run with other options: {was}",
            rule="a run goes on with the options that it was started with",
            next_step="give the same options, another folder, or --fresh to start over",
        )


def clear(folder: Path) -> None:
    """Delete a run, and nothing else that may lie in the folder."""
    for path in (
        *folder.glob("options-*.json"),
        *(folder / name for name in ("texts.parquet", "held-out.tsv", "history.json")),
    ):
        path.unlink(missing_ok=True)
    for name in ("teacher", "checkpoints", "model"):
        shutil.rmtree(folder / name, ignore_errors=True)
