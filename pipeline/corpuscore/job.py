"""Job: what to score, with what, into where. Frozen and validated; its JSON schema draws the Airflow form.

The command line, the DAG and Python callers all build this one object; stages take their own piece of it
(`job.reading`, `job.scoring`), never the whole.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from corpuscore.addresses import is_readable, is_writable, shown
from corpuscore.errors import JobError
from corpuscore.records import Device, Format, LongDocuments, Precision, digest

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")

#: Raised when the same bytes become other documents than before, so that what was scored of the others is not reused.
READING_REVISION = 1

AUTO, NONE = "auto", "none"
_SPELLED = {"tab": "\t", r"\t": "\t", "space": " "}
_NOT_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How an object becomes documents.

    Attributes:
        text_column: Column or JSON key of the text.
        id_columns: Columns that make the document id, joined with "/"; empty: `<uri>#<position>`.
        keep_columns: Columns that travel to the table.
        max_document_bytes: A longer document (UTF-8 bytes) is a reject, not a memory problem.
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


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Which scorer, and how it treats a document.

    Attributes:
        model: `bundled`, a folder, or a hub name.
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


def chosen(options: ReadOptions | ScoreOptions) -> dict[str, Any]:
    """The fields of some options that are not at their default: an option that is added later renames no work."""
    values = ((field, getattr(options, field.name)) for field in fields(options))
    return {field.name: value for field, value in values if value != field.default}


def _without_secrets(value: Any) -> Any:
    """A value as messages, reprs and files hold it: addresses, and lists of them, without their secrets."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_secrets, value))
    return shown(value) if isinstance(value, str) else value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"named twice: {', '.join(map(shown, repeated))}")
    return values


class Job(BaseModel):
    """One scoring job. Every field is an argument of `corpuscore run` and a field of the DAG's form."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="score_corpus")

    corpus: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            title="Corpus",
            description="Objects to score: URIs of objects, prefixes or glob patterns.",
            examples=[["s3://my-bucket/paragraphs/"], ["/data/corpus/*.parquet"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ]
    format: Annotated[
        Literal["auto", Format],
        Field(
            title="Format",
            description="`auto` goes by the object's name.",
            json_schema_extra={"section": "Corpus"},
        ),
    ] = "auto"
    text_column: Annotated[
        str,
        Field(
            min_length=1,
            title="Text column",
            description="Column or JSON key that holds the text.",
            json_schema_extra={"section": "Corpus"},
        ),
    ] = "text"
    id_columns: Annotated[
        tuple[str, ...],
        Field(
            title="Id columns",
            description="Columns that together name a document; empty: object and position in it.",
            examples=[["id"], ["book", "paragraph"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = ()
    keep_columns: Annotated[
        tuple[str, ...],
        Field(
            title="Columns to keep",
            description="Columns that travel to the table beside the scores.",
            examples=[["book"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = ()
    csv_delimiter: Annotated[
        str,
        Field(
            title="CSV delimiter",
            description="Character between fields, or `tab`; `auto`: a tab in .tsv and .tab, else a comma.",
            examples=["auto", "tab", ";", "|"],
            json_schema_extra={"section": "Reading"},
        ),
    ] = AUTO
    csv_quote: Annotated[
        str,
        Field(
            title="CSV quote",
            description="Character around fields that hold delimiters or line ends; `none`: quotes are text.",
            examples=['"', "'", "none"],
            json_schema_extra={"section": "Reading"},
        ),
    ] = '"'
    csv_escape: Annotated[
        str,
        Field(
            title="CSV escape",
            description="Character before a quote that is text, where such quotes are not doubled; `none`; `auto`: a "
            "backslash where an object's beginning makes no sense otherwise.",
            examples=["auto", "\\", "none"],
            json_schema_extra={"section": "Reading"},
        ),
    ] = AUTO
    csv_comment: Annotated[
        str,
        Field(
            title="CSV comment",
            description="Character that begins lines which are no rows; `none`.",
            examples=["none", "#"],
            json_schema_extra={"section": "Reading"},
        ),
    ] = NONE
    csv_header: Annotated[
        tuple[str, ...],
        Field(
            title="CSV header",
            description="Names of the columns where the files have no header line; empty: their first line has them.",
            examples=[["id", "text"]],
            json_schema_extra={"section": "Reading"},
        ),
    ] = ()
    encoding: Annotated[
        str,
        Field(
            min_length=1,
            title="Encoding",
            description="Of JSON Lines, CSV and plain text; a byte order mark of UTF-16 is recognised.",
            examples=["utf-8", "latin-1", "cp1252", "utf-16"],
            json_schema_extra={"section": "Reading"},
        ),
    ] = "utf-8"
    partition_rows: Annotated[
        int,
        Field(
            ge=1,
            le=10_000_000,
            title="Rows a partition",
            description="About how many documents one task scores.",
            json_schema_extra={"section": "Corpus"},
        ),
    ] = 10_000
    model: Annotated[
        str,
        Field(
            min_length=1,
            title="Model",
            description="`bundled`, a folder with a checkpoint, or a hub name.",
            examples=["bundled", "/models/my-classifier", "SamLowe/roberta-base-go_emotions"],
            json_schema_extra={"section": "Model"},
        ),
    ] = "bundled"
    backend: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_]*$",
            title="Backend",
            description="`auto` takes the one that fits the checkpoint.",
            json_schema_extra={"section": "Model"},
        ),
    ] = "auto"
    device: Annotated[
        Device,
        Field(title="Device", description="Where the model runs.", json_schema_extra={"section": "Model"}),
    ] = "auto"
    precision: Annotated[
        Precision,
        Field(
            title="Precision",
            description="`auto`: bf16 on a GPU, fp32 on a CPU.",
            json_schema_extra={"section": "Model"},
        ),
    ] = "auto"
    max_tokens: Annotated[
        int,
        Field(
            ge=4,
            le=1_000_000,
            title="Tokens at the most",
            description="Window of the model, special tokens included.",
            json_schema_extra={"section": "Model"},
        ),
    ] = 512
    long_documents: Annotated[
        LongDocuments,
        Field(
            title="Long documents",
            description="Cut at the window, or score overlapping windows and pool them.",
            json_schema_extra={"section": "Model"},
        ),
    ] = "truncate"
    allow_pickle: Annotated[
        bool,
        Field(
            title="Allow pickled weights",
            description="Read weights that are not safetensors. A pickle can run code: only from people you trust.",
            json_schema_extra={"section": "Model"},
        ),
    ] = False
    work: Annotated[
        str,
        Field(
            min_length=1,
            title="Work location",
            description="Folder or prefix for manifests, parts and receipts; keep it between runs.",
            examples=["s3://my-bucket/corpuscore/", "/data/corpuscore"],
            json_schema_extra={"section": "Target"},
        ),
    ]
    warehouse: Annotated[
        str,
        Field(
            title="Warehouse",
            description="`duckdb:///FILE` or `postgresql://user@host/database`; passwords come from the environment.",
            examples=["duckdb:////data/scores.duckdb", "postgresql://scores@warehouse/analytics"],
            json_schema_extra={"section": "Target"},
        ),
    ]
    table: Annotated[
        str,
        Field(
            title="Table",
            description="Table of the scores; `<table>_rejects`, `_ledger` and `_runs` stand beside it.",
            examples=["scores", "analytics.scores"],
            json_schema_extra={"section": "Target", "pattern": f"^{_IDENTIFIER.pattern}$"},
        ),
    ] = "scores"
    max_reject_fraction: Annotated[
        float,
        Field(
            ge=0.0,
            le=1.0,
            title="Rejects at the most",
            description="Share of documents that may be rejected before the load is stopped.",
            json_schema_extra={"section": "Target"},
        ),
    ] = 0.01
    departed: Annotated[
        Literal["keep", "remove", "fail"],
        Field(
            title="Departed objects",
            description="Rows of objects that are gone from the corpus: keep them with a warning, remove them after "
            "the load, or fail before it.",
            json_schema_extra={"section": "Target"},
        ),
    ] = "keep"
    cluster: Annotated[
        str,
        Field(
            pattern=r"^(local|(tcp|tls)://.+)$",
            title="Dask cluster",
            description="`local`, or the address of a scheduler.",
            examples=["local", "tcp://dask-scheduler:8786"],
            json_schema_extra={"section": "Cluster"},
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000,
            title="Workers",
            description="Of a local cluster; empty: one a GPU, or what the cores carry.",
            json_schema_extra={"section": "Cluster"},
        ),
    ] = None

    @field_validator("*")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        texts = value if isinstance(value, tuple) else (value,)
        if not all(is_writable(text) for text in texts if isinstance(text, str)):
            raise ValueError("it holds what no file or table can hold; a value is text in UTF-8 without NUL")
        return value

    @field_validator("corpus", "id_columns", "keep_columns", "csv_header")
    @classmethod
    def _no_repeats(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(values)

    @field_validator("warehouse", "cluster")
    @classmethod
    def _readable(cls, value: str) -> str:
        if not is_readable(value):
            raise ValueError(
                "the address cannot be read (not shown, it may hold a password); write / ? # @ : & % of a password "
                "percent-encoded, or leave it out and set PGPASSWORD"
            )
        return value

    @field_validator("csv_delimiter", "csv_quote", "csv_escape", "csv_comment")
    @classmethod
    def _character(cls, value: str, info: ValidationInfo) -> str:
        words = {"csv_delimiter": (AUTO,), "csv_escape": (AUTO, NONE)}.get(str(info.field_name), (NONE,))
        if value in words:
            return value
        character = _SPELLED.get(value, value)
        if len(character) != 1 or not character.isascii() or character.isalnum() or character in "\r\n":
            named = " or ".join(f"`{word}`" for word in words)
            raise ValueError(f"one character of ASCII that is no letter, digit or line end, `tab`, or {named}")
        return character

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, value: str) -> str:
        try:
            found = codecs.lookup(value)
            "".encode(found.name)  # refused by what is no encoding of text, such as base64
        except LookupError:
            found = None
        if found is None or found.name.replace("-", "_") in _NOT_TEXT:
            raise ValueError(
                "no encoding of text that Python knows, such as utf-8, latin-1, cp1252, utf-16 or shift_jis"
            )
        return found.name.removesuffix("-sig")

    @field_validator("model")
    @classmethod
    def _without_login(cls, value: str) -> str:
        if "://" in value and shown(value) != value:
            raise ValueError("the address of a model holds no password (not shown); log in with its own tools")
        return value

    @field_validator("table")
    @classmethod
    def _table_name(cls, value: str) -> str:
        if not _IDENTIFIER.fullmatch(value):
            raise ValueError("a table is NAME or SCHEMA.NAME of letters, digits and _")
        return value

    @model_validator(mode="after")
    def _no_effectless_options(self) -> Self:
        if self.workers is not None and self.cluster != "local":
            raise ValueError("workers is for cluster=local; a cluster with an address has its own")
        clash = set(self.keep_columns) & {self.text_column}
        if clash:
            raise ValueError(f"keep_columns names the text column {self.text_column!r}; texts stay in the corpus")
        given = {name: getattr(self, name) for name in ("csv_delimiter", "csv_quote", "csv_escape", "csv_comment")}
        given = {name: value for name, value in given.items() if value not in (AUTO, NONE)}
        if self.csv_escape == self.csv_quote:
            raise ValueError("csv_escape is the quote itself; quotes that are doubled need no escape: leave it out")
        if len(set(given.values())) < len(given):
            raise ValueError(f"{', '.join(f'{name}={value!r}' for name, value in given.items())}: two are the same")
        return self

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """Validate loose values, such as arguments or DAG params.

        Raises:
            JobError: Naming every value that breaks a rule, and the rule.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in issue['loc']) or 'job'}={_without_secrets(issue.get('input'))!r}: "
                f"{issue['msg'].removeprefix('Value error, ')}"
                if issue["loc"]
                else issue["msg"].removeprefix("Value error, ")
                for issue in error.errors(include_url=False)
            ]
            raise JobError("; ".join(problems), next_step="correct the arguments (corpuscore run --help)") from None

    @property
    def reading(self) -> ReadOptions:
        """The piece that readers take."""
        return ReadOptions(
            text_column=self.text_column,
            id_columns=self.id_columns,
            keep_columns=self.keep_columns,
            csv_delimiter=self.csv_delimiter,
            csv_quote=self.csv_quote,
            csv_escape=self.csv_escape,
            csv_comment=self.csv_comment,
            csv_header=self.csv_header,
            encoding=self.encoding,
        )

    @property
    def scoring(self) -> ScoreOptions:
        """The piece that scorers take."""
        return ScoreOptions(
            model=self.model,
            backend=self.backend,
            device=self.device,
            precision=self.precision,
            max_tokens=self.max_tokens,
            long_documents=self.long_documents,
            allow_pickle=self.allow_pickle,
        )

    def without_secrets(self) -> Self:
        """The same job, fit to be written down: no password in its addresses (locations never hold one)."""
        return self.model_copy(update={"warehouse": shown(self.warehouse), "cluster": shown(self.cluster)})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _without_secrets(value)

    @property
    def options_digest(self) -> str:
        """sha256 over what changes a part: how reading goes, reading options that were chosen, window and pooling."""
        return digest([READING_REVISION, chosen(self.reading), self.max_tokens, self.long_documents])
