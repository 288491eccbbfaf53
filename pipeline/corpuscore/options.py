"""The pieces of a job that its stages take: how to read, what to list, how to score, what the table holds.

Job -> ReadOptions, SelectOptions, ScoreOptions, TableOptions
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from corpuscore.naming import Column, Template, column_of, template_of
from corpuscore.records import Device, LongDocuments, Precision, ScoreType

#: Raised when the same bytes become other documents than before, so that what was scored of the others is not reused.
READING_REVISION = 1

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How an object becomes documents.

    Attributes:
        text_column: Column or JSON key of the text.
        text_template: Several of them in one text, see corpuscore.naming; in place of text_column.
        id_columns: Columns that make the document id, joined with "/"; empty: `<uri>#<position>`.
        keep_columns: Columns that travel to the table.
        max_document_bytes: A longer document (UTF-8 bytes) is a reject, not a memory problem.
        anonymous: Objects are read without credentials.
        csv_delimiter: Character between fields of CSV; `auto`: a tab in .tsv and .tab, else a comma.
        csv_quote: Character around fields; `none`: there is none.
        csv_escape: Character before quotes in quotes, where they are not doubled; `none`, or `auto`: a backslash where
            an object's beginning makes no sense otherwise.
        csv_comment: Character that begins lines which are no rows; `none`.
        csv_header: Names of the columns of CSV without a header line; empty: the first line has them.
        encoding: Of JSON Lines, CSV and plain text.
    """

    text_column: str = "text"
    id_columns: tuple[str, ...] = ()
    keep_columns: tuple[str, ...] = ()
    max_document_bytes: int = 8 * 2**20
    text_template: str | None = None
    anonymous: bool = False
    csv_delimiter: str = AUTO
    csv_quote: str = '"'
    csv_escape: str = AUTO
    csv_comment: str = NONE
    csv_header: tuple[str, ...] = ()
    encoding: str = "utf-8"

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """From its fields as JSON holds them: tuples are lists there."""
        fields: dict[str, Any] = {name: tuple(held) if isinstance(held, list) else held for name, held in value.items()}
        return cls(**fields)

    @property
    def template(self) -> Template:
        """What the text is made of: the text column alone, or several."""
        return template_of(self.text_template) if self.text_template else Template(("", ""), (self.text_column,))

    @property
    def ids(self) -> tuple[str, ...]:
        """Paths of the id columns."""
        return tuple(column_of(given).path for given in self.id_columns)

    @property
    def kept(self) -> tuple[Column, ...]:
        """The columns that travel to the table: those to keep, and id columns that are given a name there."""
        named = (given for given in self.id_columns if "=" in given)
        return tuple(map(column_of, (*self.keep_columns, *named)))

    @property
    def kept_names(self) -> tuple[str, ...]:
        """What the table calls them."""
        return tuple(column.name for column in self.kept)


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """Which of the objects under its URIs a corpus has, and with what rights they are listed.

    Attributes:
        exclude: Glob patterns of objects and folders that are left out.
        since: Only objects that were written then or later; None: all.
        anonymous: Without credentials.
    """

    exclude: tuple[str, ...] = ()
    since: datetime | None = None
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Which scorer, and how it treats a document.

    Attributes:
        model: `bundled`, a folder, a hub name, or `grpc://host:port/NAME` of a service.
        backend: `auto` or the name of a file in scoring/backends.
        device: auto, cpu or cuda.
        precision: auto, fp32, bf16, fp16, int8 or fp8.
        max_tokens: Window of the model in tokens, special tokens included.
        long_documents: Beyond max_tokens: cut (truncate), or score windows and take their mean or max.
        allow_pickle: Read `pytorch_model.bin` where there is no safetensors file (it can run code).
    """

    model: str = "bundled"
    backend: str = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    max_tokens: int = 512
    long_documents: LongDocuments = "truncate"
    allow_pickle: bool = False


#: Options that change nothing of what is read.
_ACCESS = frozenset({"anonymous"})


def chosen(options: ReadOptions | ScoreOptions) -> dict[str, Any]:
    """The fields of some options that are not at their default: an option that is added later renames no work."""
    values = ((field, getattr(options, field.name)) for field in fields(options) if field.name not in _ACCESS)
    return {field.name: value for field, value in values if value != field.default}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What the table holds of the scores. No part and no work id depends on it: columns are derived at the load.

    Attributes:
        labels: Labels that have a column; empty: all.
        threshold: From which score on the column `labels` lists a label; None: there is no such column.
        top_label: Whether there are the columns `top_label` and `top_score`.
        score_type: Type of the scores' columns.
    """

    labels: tuple[str, ...] = ()
    threshold: float | None = None
    top_label: bool = False
    score_type: ScoreType = "float32"

    def stored(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Of a model's labels, those that have a column."""
        return tuple(label for label in labels if not self.labels or label in self.labels)
