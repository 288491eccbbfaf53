"""Documents with gold labels: the tab-separated GoEmotions form (text, label numbers, id) and Parquet (text, labels).

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and what is true of them.

    Attributes:
        texts: One a document.
        gold_DL: bool; several labels of a document may be true, or none.
        labels: Names in column order.
    """

    texts: tuple[str, ...]
    gold_DL: npt.NDArray[np.bool_]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: npt.NDArray[np.bool_]) -> Labelled:
        """The documents where rows [D] is true."""
        return Labelled(tuple(np.array(self.texts, dtype=object)[rows]), self.gold_DL[rows], self.labels)

    def split(self, fraction: float) -> tuple[Labelled, Labelled]:
        """(the rest, about this fraction), by a hash of the text, so that copies of a text stay on one side."""
        held_D = np.array([_uniform(text) < fraction for text in self.texts], dtype=bool)
        return self.take(~held_D), self.take(held_D)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text only."""
    normal = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(normal.encode()).digest()[:8], "big") / 2**64


def read_label_names(path: str) -> tuple[str, ...]:
    """One name a line, in the order of their numbers."""
    names = tuple(line.strip() for line in _read_text(path).splitlines() if line.strip())
    if not names or len(set(names)) != len(names):
        raise TrainingError(
            f"{path} names {len(names)} labels, {len(set(names))} of them different", rule="one label a line, each once"
        )
    return names


def read_labelled(path: str, labels: Sequence[str], label_names: Sequence[str] | None = None) -> Labelled:
    """Read a labelled file.

    Args:
        path: A `.parquet` file with columns text and labels (names or numbers, one or a list), or a tab-separated one.
        labels: The model's labels: the columns of the result.
        label_names: What label numbers mean; the model's order where None.

    Raises:
        TrainingError: The file cannot be read, is empty, or has labels that the model doesn't.
    """
    names = tuple(label_names) if label_names is not None else tuple(labels)
    _known(names, labels, path)
    rows = _parquet_rows(path) if path.endswith((".parquet", ".pq")) else _tsv_rows(path)
    texts: list[str] = []
    columns: list[list[int]] = []
    number = {label: index for index, label in enumerate(labels)}
    for line, (text, found) in enumerate(rows, start=1):
        texts.append(text)
        columns.append([number[_name(value, names, path, line)] for value in found])
    if not texts:
        raise TrainingError(
            f"{path} holds no documents", rule="a labelled file has one document a row", next_step="check the path"
        )
    gold_DL = np.zeros((len(texts), len(labels)), dtype=bool)
    for row, found in enumerate(columns):
        gold_DL[row, found] = True
    return Labelled(tuple(texts), gold_DL, tuple(labels))


def write_labelled(documents: Labelled, path: Path) -> None:
    """The tab-separated form, numbers in the order of `documents.labels`; the id is the row."""
    lines = []
    for row, (text, gold_L) in enumerate(zip(documents.texts, documents.gold_DL, strict=True)):
        numbers = ",".join(str(index) for index in np.flatnonzero(gold_L))
        lines.append(f"{' '.join(text.split())}\t{numbers}\t{row}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _known(names: Sequence[str], labels: Sequence[str], path: str) -> None:
    strangers = sorted(set(names) - set(labels))
    if strangers:
        raise TrainingError(
            f"{path}: the model has no label {', '.join(strangers)}",
            rule=f"its labels are {', '.join(labels)}",
            next_step="use a file with the model's labels, or another model",
        )


def _name(value: Any, names: Sequence[str], path: str, line: int) -> str:
    """A label's name from a number or a name in the file."""
    if isinstance(value, str) and value in names:
        return value
    try:
        index = int(value)
    except (TypeError, ValueError):
        index = -1
    if 0 <= index < len(names):
        return names[index]
    raise TrainingError(
        f"{path}, row {line}: unknown label {value!r}",
        rule=f"labels are numbers from 0 to {len(names) - 1}, or names: {', '.join(names)}",
        next_step="check the file, or name its labels with --label-names",
    )


def _tsv_rows(path: str) -> Iterable[tuple[str, list[str]]]:
    for line, row in enumerate(_read_text(path).split("\n"), start=1):
        if not row.strip():
            continue
        fields = row.rstrip("\r").split("\t")
        if len(fields) < 2:
            raise TrainingError(
                f"{path}, row {line} has {len(fields)} columns",
                rule="a tab-separated file has text, comma-separated label numbers and, optionally, an id",
                next_step="separate the columns by tabs, or use Parquet with columns text and labels",
            )
        yield fields[0], [part for part in fields[1].split(",") if part.strip()]


def _parquet_rows(path: str) -> Iterable[tuple[str, list[Any]]]:
    try:
        table = pq.read_table(path, columns=["text", "labels"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}", rule="Parquet with columns text and labels", next_step="check the file"
        ) from error
    for text, found in zip(table["text"].to_pylist(), table["labels"].to_pylist(), strict=True):
        yield text or "", found if isinstance(found, list) else [] if found is None else [found]


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}", rule="a UTF-8 text file", next_step="check the path"
        ) from error
