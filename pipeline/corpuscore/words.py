"""How things are said where people meet them: fields of a job, how many of something, how long.

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


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `7 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60} min"
