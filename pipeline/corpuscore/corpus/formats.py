"""How an object is read, by its name; and the rules that column names keep."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from corpuscore.errors import CorpusError, JobError
from corpuscore.job import ReadOptions, chosen
from corpuscore.records import COLUMN_NEXT_STEP, COLUMN_RULE, DOCUMENT_FIELDS, OWN_COLUMNS, Format, column_problems

Compression = Literal["gzip", "zstd", "bzip2", "xz", "zip"]

_COMPRESSIONS: dict[str, Compression] = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zip": "zip",
}
_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "text",
}


def compression_of(uri: str) -> Compression | None:
    """How an object is compressed by the end of its name; None where that says nothing."""
    name = uri.lower()
    return next((kind for suffix, kind in _COMPRESSIONS.items() if name.endswith(suffix)), None)


def plain_name(uri: str) -> str:
    """A name in small letters, without the ending of a compression."""
    name = uri.lower()
    return next((name.removesuffix(suffix) for suffix in _COMPRESSIONS if name.endswith(suffix)), name)


def format_of(uri: str) -> Format:
    """The format of an object by its name.

    Raises:
        CorpusError: The name says nothing.
    """
    plain = plain_name(uri)
    for suffix, kind in _FORMATS.items():
        if plain.endswith(suffix) and (len(plain) == len(uri) or kind != "parquet"):
            return kind
    raise CorpusError(
        f"{uri}: unknown format",
        rule=f"a name ends in {', '.join(_FORMATS)}; all but Parquet also with one of {', '.join(_COMPRESSIONS)}",
        next_step=f"name the format ({', '.join(get_args(Format))}), or leave the object out with a glob pattern",
    )


def check_reading(reading: ReadOptions, kind: Format) -> None:
    """Raise where the options ask a format for what it cannot give, or a kept column would hide one of ours.

    Raises:
        JobError: Naming the columns.
    """
    own = (*OWN_COLUMNS, *(field.name for field in DOCUMENT_FIELDS))
    if problems := column_problems(reading.keep_columns, (), own):
        raise JobError("; ".join(problems), rule=COLUMN_RULE, next_step=COLUMN_NEXT_STEP)
    asked = (*reading.id_columns, *reading.keep_columns)
    if kind == "text" and asked:
        raise JobError(
            f"id_columns or keep_columns name {', '.join(asked)}, but the corpus has plain text",
            rule="plain text has no columns",
            next_step="leave them out, or convert the corpus to JSON Lines",
        )


def check_effect(reading: ReadOptions, kinds: Collection[Format]) -> None:
    """Raise where options are for CSV, and a corpus has none.

    Args:
        reading: The options.
        kinds: Formats of the corpus; none, where it has no bytes.

    Raises:
        JobError: Naming the options.
    """
    given = [name for name in chosen(reading) if name.startswith("csv_")]
    if given and kinds and "csv" not in kinds:
        raise JobError(
            f"{', '.join(given)}: the corpus has no CSV, but {', '.join(sorted(kinds))}",
            rule="an option has an effect",
            next_step="leave it out, or name the format (csv)",
        )


def check_columns(uri: str, reading: ReadOptions, found: list[str]) -> None:
    """Raise where the text, id or kept columns are not all there, once each.

    Raises:
        CorpusError: Naming the missing columns and those that there are.
    """
    wanted = chosen_columns(reading)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CorpusError(
            f"{uri}: no column {', '.join(map(repr, missing))}",
            rule=f"it has {', '.join(repr(name[:60]) for name in found[:50]) or 'no columns'}",
            next_step="set text_column, id_columns and keep_columns to columns that are there",
        )
    twice = [name for name in wanted if found.count(name) > 1]
    if twice:
        raise CorpusError(f"{uri}: two columns are named {', '.join(map(repr, twice))}", next_step="rename one of them")


def chosen_columns(reading: ReadOptions) -> list[str]:
    """Text, id and kept columns, each once."""
    return list(dict.fromkeys((reading.text_column, *reading.id_columns, *reading.keep_columns)))
