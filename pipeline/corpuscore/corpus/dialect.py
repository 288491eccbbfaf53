"""How a CSV object is written, as the options and its name say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from corpuscore.corpus.formats import plain_name
from corpuscore.options import AUTO, NONE, ReadOptions

_TABS = (".tsv", ".tab")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The characters of a CSV object, each one of ASCII.

    Attributes:
        delimiter: Between fields.
        quote: Around fields that hold delimiters, line ends or quotes; empty: there are none.
        escape: Before a quote, delimiter, line end or itself, which it makes a character like others; empty: none.
        comment: A line that begins with it is no row; empty: none.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    comment: str = ""

    @property
    def escaped(self) -> Dialect:
        """The same with quotes that backslashes escape."""
        return replace(self, escape="\\")


def said_dialect(uri: str, reading: ReadOptions) -> Dialect:
    """What the options say, and the object's name; without an escape where that is left to the object's beginning."""
    tab_or_comma = "\t" if plain_name(uri).endswith(_TABS) else ","
    return Dialect(
        delimiter=tab_or_comma if reading.csv_delimiter == AUTO else reading.csv_delimiter,
        quote="" if reading.csv_quote == NONE else reading.csv_quote,
        escape="" if reading.csv_escape in (AUTO, NONE) else reading.csv_escape,
        comment="" if reading.csv_comment == NONE else reading.csv_comment,
    )
