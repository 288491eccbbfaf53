r"""How a job names columns: by a path, under another name, in a template, in the names of folders.

message.body            the field `body` of `message`; a column that is literally called so wins
message.body=body       the same, called `body` in the table; the last = counts
{title}\n\n{body}       a text of two columns
.../year=2024/x.csv     every row of the object has `year`, unless it has a column of its own that is called so
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

#: What Hive and Spark name the folder of rows whose partition column is null.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

_TOKEN = re.compile(r"(?P<brace>\{\{|\}\})|(?P<escape>\\[nt\\])|\{(?P<column>[^{}]+)\}|(?P<stray>[{}])")
_ESCAPES = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


class Column(NamedTuple):
    """A column of the corpus and of the table.

    Attributes:
        path: Its name, or the names down to it joined with dots.
        name: What the table calls it.
    """

    path: str
    name: str


def column_of(given: str) -> Column:
    """What `path` or `path=name` names; a path that holds = itself is given with a name."""
    path, _, name = given.rpartition("=")
    return Column(path if "=" in given else name, name)


class Template(NamedTuple):
    """A text of several columns.

    Attributes:
        literals: What stands before, between and behind the columns: one more than these.
        columns: Their paths, in order.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...]


def template_of(given: str) -> Template:
    r"""The template that a text describes: `{path}` is a column, `{{` a brace, `\n` a line end, `\t` a tab.

    Raises:
        ValueError: A brace by itself, or no column.
    """
    literals, columns, at = [""], [], 0
    for token in _TOKEN.finditer(given):
        literals[-1] += given[at : token.start()]
        at = token.end()
        if token["stray"]:
            raise ValueError(f"the {token['stray']} at character {token.start() + 1} stands by itself; write it twice")
        if token["column"]:
            columns.append(token["column"])
            literals.append("")
        else:
            literals[-1] += _ESCAPES.get(token[0], token[0][0])
    literals[-1] += given[at:]
    if not columns:
        raise ValueError("it names no column; write each in braces, as in {title}")
    return Template(tuple(literals), tuple(columns))


def places(path: str) -> list[tuple[str, str]]:
    """Where a path may be cut into the name of a column and the path in it: the longest name first."""
    cuts = [at for at, character in enumerate(path) if character == "."]
    return [(path[:at], path[at + 1 :]) for at in reversed(cuts)]


def folder_values(uri: str) -> dict[str, str | None]:
    """What the folders of an object say of all of its rows: `key=value`, percent-decoded, the innermost of a key."""
    found: dict[str, str | None] = {}
    for folder in uri.split("/")[:-1]:
        key, _, value = folder.partition("=")
        if key and key != folder:
            found[unquote(key)] = None if value == HIVE_NULL else unquote(value)
    return found
