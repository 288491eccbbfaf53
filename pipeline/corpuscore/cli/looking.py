"""Commands that look and change nothing: which runs there are, how far one is, what it rejected."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from corpuscore import stages
from corpuscore.cli.display import as_json_option, print_facts, say
from corpuscore.cli.options import WORK_VARIABLE
from corpuscore.errors import JobError
from corpuscore.summaries import RejectedDocument
from corpuscore.words import counted

Command = TypeVar("Command", bound=Callable[..., Any])

_LISTED = 20

#: Columns of a table that does not go to a terminal.
_PLAIN_WIDTH = 160


def on_a_run(command: Command) -> Command:
    """Give a command the argument RUN, and --work for where its id is looked up."""
    place = click.option(
        "--work", metavar="URI", envvar=WORK_VARIABLE, show_envvar=True, help="Where the id of a run is looked up."
    )
    return click.argument("run", required=False)(place(command))


@click.command()
@click.option(
    "--work", metavar="URI", envvar=WORK_VARIABLE, show_envvar=True, help="Work location of the runs.", required=True
)
@click.option("--limit", type=click.IntRange(min=1), default=_LISTED, show_default=True, help="Runs at the most.")
@as_json_option
def runs(work: str, limit: int, as_json: bool) -> None:
    """List the runs of a work location, the latest first."""
    found = stages.runs(work)
    if as_json:
        click.echo(orjson.dumps([line.to_json() for line in found[:limit]], option=orjson.OPT_INDENT_2))
        return
    if not found:
        say(f"no runs at {work}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("run", "planned", "stage", "documents", "rejected", "table", "corpus"):
        is_number = name in ("documents", "rejected")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for line in found[:limit]:
        counts = ("" if count is None else f"{count:,}" for count in (line.documents, line.rejected))
        table.add_row(line.run_id, _when(line.planned_at), line.stage, *counts, line.table, _short(line.corpus))
    table.columns[0].min_width = len(found[0].run_id)
    Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH).print(table)
    if len(found) > limit:
        say(f"{counted(len(found) - limit, 'earlier run')} not listed: --limit {len(found)}")


def _when(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _short(corpus: Sequence[str]) -> str:
    more = f" and {len(corpus) - 1} more" if len(corpus) > 1 else ""
    return f"{corpus[0]}{more}" if corpus else ""


@click.command()
@on_a_run
@as_json_option
def status(run: str | None, work: str | None, as_json: bool) -> None:
    """Say how far a run is: its address WORK/runs/RUN_ID, or the beginning of its id; without RUN, the latest.

    Exit status 1 while it is not loaded.
    """
    found = stages.status(stages.find_run(run, work))
    print_facts(found.to_json(), as_json)
    sys.exit(0 if found.stage == "loaded" else 1)


@click.command()
@on_a_run
@click.option("--reason", help="Only those of this reason.")
@click.option("--limit", type=click.IntRange(min=1), default=_LISTED, show_default=True, help="Documents at the most.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@as_json_option
def rejects(
    run: str | None,
    work: str | None,
    reason: str | None,
    limit: int,
    everything: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List the documents of a run that were not scored, with object, position and reason; without RUN, of the latest.

    A position is a row of Parquet or Arrow, from 0; else the byte at which the document begins, in the plain object.
    """
    if as_csv and as_json:
        raise JobError("--csv together with --json", next_step="leave one of them out")
    found = stages.rejects(stages.find_run(run, work), reason=reason, limit=None if everything else limit)
    if as_json:
        click.echo(orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([field.name for field in fields(RejectedDocument)])
        writer.writerows(asdict(document).values() for document in found.rejects)
    else:
        for document in found.rejects:
            said = f": {document.detail}" if document.detail else ""
            click.echo(f"{document.object_uri}#{document.position}  {document.reason}{said}")
    reasons = ", ".join(f"{name} {count:,}" for name, count in found.reasons.items())
    say(f"rejects: {found.rejected:,}{f' ({reasons})' if reasons else ''}")
    if len(found.rejects) < found.rejected:
        say(f"rejects: {found.rejected - len(found.rejects):,} more with --all")
    if found.missing:
        say(f"rejects: {counted(found.missing, 'partition')} not scored yet, which may have others")
