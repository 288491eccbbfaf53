"""What things are called where people meet them: fields of a job, and how many of something there are.

Messages name options of the command line, such as `--keep-column`, wherever they come from: one language inside. A
front without options, such as a form, puts its own words in their place.
"""

from __future__ import annotations

#: Options that may be given several times are named for what one of them is.
_ONE_OF_MANY = {"id_columns": "id-column", "keep_columns": "keep-column", "labels": "label"}


def flag_of(field: str) -> str:
    """The option for a field of the Job."""
    return f"--{_ONE_OF_MANY.get(field, field.replace('_', '-'))}"


def counted(number: int, what: str) -> str:
    """How many there are of something, by its name in the singular: `1 object`, `1,200 objects`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
