"""What is odd about a corpus: suspicions that reject no document, counted by kind, each with one example.

    noted = Oddities()
    noted.note("csv_unclosed", f"{uri}, byte {offset}")

A reader notes them, the receipt of its partition carries them, and validation makes a warning of each kind. A new kind
is one line in KINDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """How a kind of oddity is told.

    Attributes:
        what: Follows the count.
        rule: What is usual; may be empty.
        next_step: What the reader of the warning can do.
    """

    what: str
    rule: str
    next_step: str


KINDS: dict[str, Kind] = {
    "csv_backslash": Kind(
        "rows of CSV hold a backslash before a quote, which was read as text, so that the quote ends the field",
        "quotes in quotes are doubled, unless csv_escape names another character",
        r"set --csv-escape '\' where quotes are escaped, as Spark and MySQL write them, or none where they are not",
    ),
    "csv_escape": Kind(
        "objects of CSV were read with backslashes that escape quotes, as their first rows tell",
        "",
        r"set --csv-escape '\' to say so, or none where backslashes are text",
    ),
    "csv_after_quote": Kind(
        "rows of CSV have text behind the quote that ends a field",
        "a quote is followed by a delimiter or the line's end; other rows may be inside of these fields",
        "look at the rows, and set --csv-quote or --csv-escape as they were written",
    ),
    "csv_long_row": Kind(
        "rows of CSV take a thousand lines or more, since a field in quotes goes on so long",
        "a quote that is not closed takes the rows behind it into its field",
        "look at the quotes there; --csv-quote none reads them as text",
    ),
    "csv_unclosed": Kind(
        "objects of CSV end inside of quotes",
        "a quote that opens a field is closed",
        "mend the last row that begins with the quote, or write the object again; it may have been cut off",
    ),
    "missing_column": Kind(
        "documents lack a kept column, which is null there",
        "",
        "look whether it is called otherwise there; else nothing needs to be done",
    ),
    "cut_nanoseconds": Kind(
        "times of a kept column have digits below a microsecond, which are cut",
        "warehouses hold times in microseconds",
        "write the column as text, or as an integer, where these digits count",
    ),
    "encoding": Kind(
        "characters are U+FFFD, in place of bytes that are no text in the object's encoding",
        "",
        "check --encoding, or write the object again",
    ),
    "csv_columns": Kind(
        "rows of CSV have more or fewer fields than the header, and are rejects",
        "",
        "check --csv-delimiter, --csv-quote and --csv-escape, and the rows",
    ),
}


@dataclass(frozen=True, slots=True)
class Oddity:
    """One kind of oddity.

    Attributes:
        count: How often it was seen.
        example: Where it was seen first: object, and row or offset.
    """

    count: int
    example: str


class Oddities:
    """Counts what is odd.

    Attributes:
        found: What was noted so far, by kind.
    """

    def __init__(self) -> None:
        self.found: dict[str, Oddity] = {}

    def note(self, kind: str, example: str, count: int = 1) -> None:
        """Count something, of a kind in KINDS."""
        before = self.found.get(kind)
        self.found[kind] = Oddity(before.count + count, before.example) if before else Oddity(count, example)

    def add(self, others: Mapping[str, Oddity]) -> None:
        """Count what was noted elsewhere."""
        for kind, oddity in others.items():
            self.note(kind, oddity.example, oddity.count)


def summed(several: Iterable[Mapping[str, Oddity]]) -> dict[str, Oddity]:
    """What was noted in several places, together."""
    total = Oddities()
    for found in several:
        total.add(found)
    return total.found


def message_of(kind: str, oddity: Oddity) -> str:
    """An oddity in a sentence, with its rule and the next step."""
    told = KINDS.get(kind, Kind(f"oddities of the kind {kind}, which this version does not know", "", ""))
    sentences = [f"{oddity.count:,} {told.what}, such as {oddity.example}."]
    sentences += [f"{name}: {said}." for name, said in (("Rule", told.rule), ("Next", told.next_step)) if said]
    return " ".join(sentences)
