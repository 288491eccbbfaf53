"""What a command shows while it works: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from corpuscore.progress import Lines, figures, remaining
from corpuscore.report import Report
from corpuscore.tally import ProgressCallback

_SECONDS_BETWEEN_LINES = 5.0


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def say(line: str) -> None:
    """One line about a stage."""
    click.echo(line, err=True)


@contextmanager
def progress(name: str, what: str) -> Iterator[Bar | Lines]:
    """What takes (done, total, note) and shows it, and lines that stay.

    Args:
        name: Of the stage.
        what: What is counted, such as `partitions`.
    """
    if not sys.stderr.isatty():
        yield Lines(lambda line: say(f"{name}: {line}"), what, _SECONDS_BETWEEN_LINES)
        return
    columns = (TextColumn(f"{{task.{value}}}") for value in ("fields[counted]", "fields[note]"))
    shown = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True, highlight=False)) as bar:
        yield Bar(bar, bar.add_task(name, total=1.0, counted="", note=""))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on a terminal, called as Lines are; it finds for itself how long the rest takes."""

    bar: Progress
    task: TaskID

    def __call__(
        self, done: int, total: int, note: str, seconds_to_go: float | None = None, share: float | None = None
    ) -> None:
        """Move on: by the share that is done where it is known better than by what is counted."""
        moved = done / max(total, 1) if share is None else share
        self.bar.update(self.task, completed=moved, counted=f"{done:,}/{total:,}", note=note)

    def line(self, text: str) -> None:
        """A line above the bar."""
        self.bar.console.print(text)


@contextmanager
def scoring_progress() -> Iterator[ProgressCallback]:
    """A callback that shows how far a dispatch is."""
    with progress("score", "partitions") as tell:
        yield lambda now: tell(now.done, now.total, figures(now), remaining(now), now.share)


def show(report: Report) -> None:
    """The summary, on standard output."""
    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(report.render())


def print_facts(summary: dict[str, Any], as_json: bool) -> None:
    """Names and values, on standard output; what is empty is left out."""
    if as_json:
        click.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        return
    for name, value in summary.items():
        if value not in (None, [], {}):
            click.echo(f"{name.replace('_', ' '):<18}{_plain(value)}")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value[:30]) + (" …" if len(value) > 30 else "")
    return str(value)
