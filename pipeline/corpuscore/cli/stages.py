"""The stages as commands. `run` is all of them; each other one takes the same arguments, or a run that was planned."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click
import orjson

from corpuscore import stages
from corpuscore.cli.display import say, scoring_progress, show
from corpuscore.cli.options import given, job_from, job_options
from corpuscore.errors import JobError, ValidationFailed
from corpuscore.estimate import estimate
from corpuscore.job import Job
from corpuscore.summaries import ValidationSummary

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_warehouse_again = click.option("--warehouse", metavar="URL", help="The warehouse once more, with its password.")


def _on_run_or_job(command: Callable[..., None]) -> Callable[..., None]:
    """Let a stage take --run URI, or all that `corpuscore plan` takes (which then is done first)."""

    @job_options
    @click.option(
        "--run", "run_uri", metavar="URI", help="A planned run: WORK/runs/RUN_ID, in place of the job's arguments."
    )
    @_as_json
    @functools.wraps(command)
    def wrapped(run_uri: str | None, as_json: bool, **arguments: Any) -> None:
        if run_uri is None:
            job = job_from(arguments)
            stages.check_warehouse(job)
            command(run=stages.plan(job).run, warehouse=job.warehouse, as_json=as_json)
            return
        extra = sorted(set(given(arguments)) - {"warehouse"})
        if extra:
            raise JobError(
                f"--run together with {', '.join(extra)}",
                rule="A planned run has its options already; only --warehouse may be given again, with its password",
                next_step="leave them out, or leave --run out to plan a new run",
            )
        command(run=run_uri, warehouse=arguments["warehouse"], as_json=as_json)

    return wrapped


def _print(summary: dict[str, Any], as_json: bool) -> None:
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


@click.command()
@job_options
@click.option("--dry-run", is_flag=True, help="Plan, sample and print documents, tokens, time and cost; score nothing.")
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of one worker, for the cost in a dry run.")
@_as_json
def run(dry_run: bool, price_per_hour: float | None, as_json: bool, **arguments: Any) -> None:
    """Score a corpus into a warehouse table: plan, score, validate, load, report.

    Running it again does only what is new; when nothing is, it says so.
    """
    job = job_from(arguments)
    if dry_run:
        _print(estimate(job, price_per_hour).to_json(), as_json)
        return
    if price_per_hour is not None:
        raise JobError("--price-per-hour without --dry-run", next_step="add --dry-run, which prints the expected cost")
    _run(job, as_json)


def _run(job: Job, as_json: bool) -> None:
    stages.check_warehouse(job)
    planned = stages.plan(job)
    rows = f", {planned.rows:,} documents" if planned.rows is not None else ""
    say(f"plan: {planned.objects:,} objects{rows}, {planned.partitions:,} partitions, {planned.pending:,} to score")
    if planned.kept_cuts:
        say(f"plan: {planned.kept_cuts:,} objects keep the cut in which they were scored")
    if planned.pending:
        with scoring_progress(planned.pending) as progress:
            stages.score(planned.run, progress=progress)
    validated = _validate(planned.run, job)
    say(f"validate: {validated.rows:,} documents, {validated.errors} errors, {validated.warnings} warnings")
    loaded = stages.load(planned.run, warehouse=job.warehouse)
    outdated = f", {loaded.rows_outdated:,} documents outdated" if loaded.rows_outdated else ""
    departed = f", {loaded.rows_departed:,} documents departed" if loaded.rows_departed else ""
    say(f"load: {loaded.rows_loaded:,} rows, {loaded.rejects_loaded:,} rejects{outdated}{departed}")
    report = stages.report(planned.run, warehouse=job.warehouse)
    if as_json:
        click.echo(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
    else:
        show(report)


def _validate(run: str, job: Job) -> ValidationSummary:
    """Validate; what is found damaged, and withdrawn for it, is scored and validated once more."""
    try:
        return stages.validate(run, warehouse=job.warehouse)
    except ValidationFailed:
        withdrawn = stages.pending(run)
        if not withdrawn:
            raise
    say(f"validate: {withdrawn:,} partitions are missing or damaged, and are scored again")
    with scoring_progress(withdrawn) as progress:
        stages.score(run, progress=progress)
    return stages.validate(run, warehouse=job.warehouse)


@click.command()
@job_options
@_as_json
def plan(as_json: bool, **arguments: Any) -> None:
    """List the corpus and freeze its partitions; prints the run that the other stages take."""
    job = job_from(arguments)
    stages.check_warehouse(job)
    _print(stages.plan(job).to_json(), as_json)


@click.command()
@_on_run_or_job
def score(run: str, warehouse: str | None, as_json: bool) -> None:  # noqa: ARG001  # every stage takes the same
    """Score what is pending of a run."""
    todo = stages.pending(run)
    with scoring_progress(todo) as progress:
        _print(stages.score(run, progress=progress).to_json(), as_json)


@click.command()
@_on_run_or_job
def validate(run: str, warehouse: str | None, as_json: bool) -> None:
    """Check the scores of a run; an error-level finding stops the load."""
    _print(stages.validate(run, warehouse=warehouse).to_json(), as_json)


@click.command()
@_on_run_or_job
def load(run: str, warehouse: str | None, as_json: bool) -> None:
    """Load what validation checked into the warehouse table."""
    _print(stages.load(run, warehouse=warehouse).to_json(), as_json)


@click.command()
@click.argument("run")
@_warehouse_again
@_as_json
def report(run: str, warehouse: str | None, as_json: bool) -> None:
    """Make the report of a loaded run, and print it. RUN is its address, WORK/runs/RUN_ID."""
    made = stages.report(run, warehouse=warehouse)
    if as_json:
        click.echo(orjson.dumps(made.to_json(), option=orjson.OPT_INDENT_2))
    else:
        show(made)


@click.command()
@click.argument("run")
@_as_json
def status(run: str, as_json: bool) -> None:
    """Say how far a run is. RUN is its address, WORK/runs/RUN_ID. Exit status 1 while it is not loaded."""
    found = stages.status(run)
    _print(found.to_json(), as_json)
    sys.exit(0 if found.stage == "loaded" else 1)
