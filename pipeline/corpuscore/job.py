"""Job: what to score, with what, into where. Frozen and validated; its JSON schema draws the Airflow form.

The command line, the DAG and Python callers all build this one object; stages take their own piece of it
(`job.reading`, `job.scoring`), never the whole.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from corpuscore.addresses import is_readable, is_writable, shown
from corpuscore.errors import JobError
from corpuscore.naming import template_of
from corpuscore.options import (
    AUTO,
    NONE,
    READING_REVISION,
    ReadOptions,
    ScoreOptions,
    SelectOptions,
    TableOptions,
    chosen,
)
from corpuscore.records import Device, Format, LongDocuments, Precision, ScoreType, digest
from corpuscore.words import flag_of

#: Stores that may be open to everybody, where `anonymous` shows no credentials.
_OPEN_SCHEMES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")

_SPELLED = {"tab": "\t", r"\t": "\t", "space": " "}
_NOT_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


def _without_secrets(value: Any) -> Any:
    """A value as messages, reprs and files hold it: addresses, and lists of them, without their secrets."""
    if isinstance(value, dict):
        return {key: _without_secrets(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_secrets, value))
    return shown(value) if isinstance(value, str) else value


def _problem(issue: ErrorDetails) -> str:
    """What pydantic found, in words: the option, what was given, and the rule that it breaks."""
    said = issue["msg"].removeprefix("Value error, ")
    if not issue["loc"]:
        return said
    field, *_ = issue["loc"]
    if issue["type"] == "extra_forbidden":
        return f"There is no option {str(field)!r}"
    if issue["type"] == "missing":
        return f"{flag_of(str(field))} is missing"
    return f"{flag_of(str(field))} {_without_secrets(issue['input'])!r}: {said}"


def _moment_of(text: str) -> datetime:
    """A moment that a user wrote: a date is its first one; without a zone it is UTC.

    Raises:
        ValueError: It is none.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("a moment is 2026-01-31 or 2026-01-31T06:00:00, in UTC where no zone is given") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
            description="Objects to score: URIs of objects, folders, prefixes, glob patterns or tables.",
            examples=[["s3://my-bucket/paragraphs/"], ["/data/corpus/*.parquet"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ]
    exclude: Annotated[
        tuple[str, ...],
        Field(
            title="Leave out",
            description="Glob patterns of objects and folders that are not scored: names at any depth, paths from the "
            "corpus's folder, or full URIs.",
            examples=[["*.crc", "drafts", "2023/**"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = ()
    since: Annotated[
        str | None,
        Field(
            title="Since",
            description="Only objects that were written at this date or time (ISO 8601, UTC where no zone is given), "
            "or later.",
            examples=["2026-01-31", "2026-01-31T06:00:00"],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = None
    anonymous: Annotated[
        bool,
        Field(
            title="Without login",
            description="Read the corpus without credentials: buckets that are open to everybody. Work location and "
            "warehouse keep theirs.",
            json_schema_extra={"section": "Corpus"},
        ),
    ] = False
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
            description="Column or JSON key that holds the text, `message.body` one inside of another.",
            json_schema_extra={"section": "Corpus"},
        ),
    ] = "text"
    text_template: Annotated[
        str | None,
        Field(
            min_length=1,
            title="Text template",
            description="Several columns in one text, in place of the text column; a null one counts as empty.",
            examples=[r"{title}\n\n{body}"],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = None
    id_columns: Annotated[
        tuple[str, ...],
        Field(
            title="Id columns",
            description="Columns that together name a document; empty: object and position in it. `column=name` also "
            "keeps the column, under that name.",
            examples=[["id"], ["book", "paragraph"]],
            json_schema_extra={"section": "Corpus"},
        ),
    ] = ()
    keep_columns: Annotated[
        tuple[str, ...],
        Field(
            title="Columns to keep",
            description="Columns that travel to the table beside the scores, `column=name` under another name. Folders "
            "such as `year=2024` are columns, too.",
            examples=[["book"], ["author.name=author"]],
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
            description="`bundled`, a folder with a checkpoint, a hub name, also as NAME@REVISION, or "
            "`grpc://HOST:PORT/NAME` of a service (Open Inference Protocol v2).",
            examples=["bundled", "/models/my-classifier", "SamLowe/roberta-base-go_emotions", "grpc://gpu:8001/mine"],
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
            description="`duckdb:///FILE`, `postgresql://user@host/database`, `parquet:///FOLDER`, `parquet+s3://…` or "
            "`iceberg://CATALOG`; passwords come from the environment.",
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
    labels: Annotated[
        tuple[str, ...],
        Field(
            title="Labels",
            description="Labels that have a column in the table; empty: all of the model's.",
            examples=[["joy", "anger"]],
            json_schema_extra={"section": "Target"},
        ),
    ] = ()
    threshold: Annotated[
        float | None,
        Field(
            gt=0.0,
            lt=1.0,
            title="Threshold",
            description="Adds a column `labels`: the labels whose score is this or higher, of all the model has.",
            json_schema_extra={"section": "Target"},
        ),
    ] = None
    top_label: Annotated[
        bool,
        Field(
            title="Top label",
            description="Adds the columns `top_label` and `top_score`: the label with the highest score, of all.",
            json_schema_extra={"section": "Target"},
        ),
    ] = False
    score_type: Annotated[
        ScoreType,
        Field(
            title="Type of the scores",
            description="float16 takes half the room, and keeps three digits; only Parquet folders have it.",
            json_schema_extra={"section": "Target"},
        ),
    ] = "float32"
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

    @field_validator("corpus", "exclude", "id_columns", "keep_columns", "csv_header", "labels")
    @classmethod
    def _no_repeats(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(values)

    @field_validator("since")
    @classmethod
    def _moment(cls, value: str | None) -> str | None:
        if value is not None:
            _moment_of(value)
        return value

    @field_validator("warehouse", "cluster")
    @classmethod
    def _readable(cls, value: str) -> str:
        if not is_readable(value):
            raise ValueError(
                "the address cannot be read (not shown, it may hold a password); write / ? # @ : & % of a password "
                "percent-encoded, or leave it out and set PGPASSWORD"
            )
        return value

    @field_validator("text_template")
    @classmethod
    def _is_template(cls, value: str | None) -> str | None:
        if value is not None:
            template_of(value)
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
            raise ValueError("--workers is for --cluster local; a cluster with an address has its own")
        if self.anonymous and not any(uri.lower().startswith(_OPEN_SCHEMES) for uri in self.corpus):
            raise ValueError(f"--anonymous is for a corpus at {', '.join(_OPEN_SCHEMES)}")
        if self.text_template and self.text_column != "text":
            raise ValueError(f"--text-template names its own columns; --text-column {self.text_column!r} has no effect")
        if not self.text_template and self.text_column in {column.path for column in self.reading.kept}:
            raise ValueError(f"--keep-column names the text column {self.text_column!r}; texts stay in the corpus")
        given = {name: getattr(self, name) for name in ("csv_delimiter", "csv_quote", "csv_escape", "csv_comment")}
        given = {name: value for name, value in given.items() if value not in (AUTO, NONE)}
        if self.csv_escape == self.csv_quote:
            raise ValueError("--csv-escape is the quote itself; quotes that are doubled need no escape: leave it out")
        if len(set(given.values())) < len(given):
            raise ValueError(
                f"{', '.join(f'{flag_of(name)} {value!r}' for name, value in given.items())}: two are the same"
            )
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
            problems = [_problem(issue) for issue in error.errors(include_url=False)]
            raise JobError("; ".join(problems), next_step="correct the arguments (corpuscore run --help)") from None

    @property
    def reading(self) -> ReadOptions:
        """The piece that readers take."""
        return ReadOptions(
            text_column=self.text_column,
            text_template=self.text_template,
            id_columns=self.id_columns,
            keep_columns=self.keep_columns,
            anonymous=self.anonymous,
            csv_delimiter=self.csv_delimiter,
            csv_quote=self.csv_quote,
            csv_escape=self.csv_escape,
            csv_comment=self.csv_comment,
            csv_header=self.csv_header,
            encoding=self.encoding,
        )

    @property
    def selection(self) -> SelectOptions:
        """The piece that the listing takes."""
        return SelectOptions(self.exclude, _moment_of(self.since) if self.since else None, self.anonymous)

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

    @property
    def target(self) -> TableOptions:
        """The piece that warehouses take."""
        return TableOptions(self.labels, self.threshold, self.top_label, self.score_type)

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


def section_of(name: str) -> str:
    """The section of the form in which a field of the Job is."""
    extra = Job.model_fields[name].json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError(f"the field {name} has no section")
    return str(extra["section"])
