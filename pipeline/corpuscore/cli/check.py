"""`corpuscore check`: what is odd about a corpus and a checkpoint, before anything is spent."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson

from corpuscore.cli.display import as_json_option
from corpuscore.cli.options import Sections, given, job_from, job_options
from corpuscore.survey import Survey, survey

#: What a job has to name, and a look at corpus and model does not need.
_UNUSED = {"work": "corpuscore-work", "warehouse": "duckdb:///corpuscore.duckdb"}
_COLORS = {"error": "red", "warning": "yellow"}


@click.command(cls=Sections)
@job_options
@as_json_option
def check(as_json: bool, **arguments: Any) -> None:
    """Look at a corpus and a model, and say what is odd about them; scores and writes nothing.

    Takes what run takes; --work and --warehouse may be left out. Exit status 1 where a run would be stopped.
    """
    values = given(arguments)
    made = survey(job_from({**_UNUSED, **values}), apart="work" in values)
    if as_json:
        click.echo(orjson.dumps(made.to_json(), option=orjson.OPT_INDENT_2))
    else:
        _show(made)
    sys.exit(1 if made.stops else 0)


def _show(made: Survey) -> None:
    for name, value in made.facts.items():
        click.echo(f"{name:<28}{_plain(value)}")
    for finding in sorted(made.findings, key=lambda one: ("error", "warning", "info").index(one.level)):
        click.secho(f"{finding.level}: {finding.message}", fg=_COLORS.get(finding.level))
    if not made.findings:
        click.echo("nothing odd was found")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
