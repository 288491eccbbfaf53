"""How an object is read, by its name; and the rules that column names keep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, get_args

from corpuscore.errors import CorpusError, JobError
from corpuscore.naming import folder_values
from corpuscore.options import ReadOptions, chosen
from corpuscore.records import COLUMN_NEXT_STEP, COLUMN_RULE, DOCUMENT_FIELDS, OWN_COLUMNS, Format, column_problems
from corpuscore.words import flag_of

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
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".warc": "warc",
    ".wet": "warc",
}
#: Formats that compress inside.
_UNCOMPRESSED = ("parquet", "arrow")


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
        if plain.endswith(suffix) and (len(plain) == len(uri) or kind not in _UNCOMPRESSED):
            return kind
    raise CorpusError(
        f"{uri}: unknown format",
        rule=f"a name ends in {', '.join(_FORMATS)}; all but Parquet and Arrow also with {' or '.join(_COMPRESSIONS)}",
        next_step=f"name the format ({', '.join(get_args(Format))}), or leave the object out with a glob pattern",
    )


def check_reading(reading: ReadOptions, kind: Format, uri: str) -> None:
    """Raise where the options ask a format for what it cannot give, or a kept column would hide one of ours.

    Raises:
        JobError: Naming the columns.
    """
    own = (*OWN_COLUMNS, *(field.name for field in DOCUMENT_FIELDS))
    if problems := column_problems(reading.kept_names, (), own):
        raise JobError("; ".join(problems), rule=COLUMN_RULE, next_step=COLUMN_NEXT_STEP)
    asked = [path for path in reading.ids if path not in folder_values(uri)]
    if kind == "text" and (asked or reading.text_template):
        named = f"--id-column names {', '.join(asked)}" if asked else f"--text-template is {reading.text_template!r}"
        raise JobError(
            f"{named}, but {uri} is plain text",
            rule="plain text has no columns but those of its folders",
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
    given = [flag_of(name) for name in chosen(reading) if name.startswith("csv_")]
    if given and kinds and "csv" not in kinds:
        raise JobError(
            f"{', '.join(given)}: the corpus has no CSV, but {', '.join(sorted(kinds))}",
            rule="an option has an effect",
            next_step="leave it out, or say --format csv",
        )


def check_columns(uri: str, reading: ReadOptions, found: list[str], has: Callable[[str], bool]) -> list[str]:
    """Raise where the text or id columns are not all there, or a column is there twice.

    Args:
        uri: The object.
        reading: Which columns.
        found: Names of those that there are.
        has: Whether there is one at a path.

    Returns:
        Paths of kept columns that are neither there nor named by a folder: they are null in all rows.

    Raises:
        CorpusError: Naming the missing columns and those that there are.
    """
    folders = folder_values(uri)
    missing = [path for path in reading.template.columns if not has(path)]
    missing += [path for path in reading.ids if not has(path) and path not in folders]
    if missing:
        raise missing_columns(uri, reading, missing, found)
    twice = [name for name in chosen_columns(reading) if found.count(name) > 1]
    if twice:
        raise CorpusError(f"{uri}: two columns are named {', '.join(map(repr, twice))}", next_step="rename one of them")
    return [column.path for column in reading.kept if not has(column.path) and column.path not in folders]


def missing_columns(uri: str, reading: ReadOptions, missing: Iterable[str], found: Sequence[str]) -> CorpusError:
    """The error that names columns that an object lacks and those that it has."""
    next_step = "give --text-column, --id-column and --keep-column columns that are there"
    given = {*reading.id_columns, *reading.keep_columns}
    if literal := next((name for name in found if "=" in name and name in given), None):
        next_step = f"a column whose name holds = is given with another name, as {literal}=NAME"
    return CorpusError(
        f"{uri}: no column {', '.join(map(repr, dict.fromkeys(missing)))}",
        rule=f"it has {', '.join(repr(name[:60]) for name in found[:50]) or 'no columns'}",
        next_step=next_step,
    )


def chosen_columns(reading: ReadOptions) -> list[str]:
    """Paths of text, id and kept columns, each once."""
    kept = (column.path for column in reading.kept)
    return list(dict.fromkeys((*reading.template.columns, *reading.ids, *kept)))
