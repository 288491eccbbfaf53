"""The stages as commands. `run` is all of them; each other one takes the same arguments, or a run that was planned."""

from __future__ import annotations

import functools
import webbrowser
from collections.abc import Callable
from typing import Any

import click
import orjson

from corpuscore import stages
from corpuscore.cli.display import as_json_option, print_facts, say, scoring_progress, show
from corpuscore.cli.forecast import Price, forecast, price_of
from corpuscore.cli.looking import on_a_run
from corpuscore.cli.options import Sections, given, job_from, job_options
from corpuscore.errors import JobError, ValidationFailed
from corpuscore.estimate import estimate
from corpuscore.job import Job
from corpuscore.storage import link_of
from corpuscore.summaries import ScoreSummary, ValidationSummary
from corpuscore.words import counted, flag_of

_warehouse_again = click.option("--warehouse", metavar="URL", help="The warehouse once more, with its password.")


def _on_run_or_job(command: Callable[..., None]) -> Callable[..., None]:
    """Let a stage take --run URI, or all that `corpuscore plan` takes (which then is done first)."""

    @job_options
    @click.option(
        "--run",
        "planned",
        metavar="RUN",
        help="A planned run, WORK/runs/RUN_ID or the beginning of its id in --work, in place of the job's arguments.",
    )
    @as_json_option
    @functools.wraps(command)
    def wrapped(planned: str | None, as_json: bool, **arguments: Any) -> None:
        if planned is None:
            job = job_from(arguments)
            stages.check_warehouse(job)
            command(run=stages.plan(job).run, warehouse=job.warehouse, as_json=as_json)
            return
        extra = sorted(map(flag_of, set(given(arguments)) - {"warehouse", "work"}))
        if extra:
            raise JobError(
                f"--run together with {', '.join(extra)}",
                rule="A planned run has its options already; only --warehouse may be given again, with its password",
                next_step="leave them out, or leave --run out to plan a new run",
            )
        run = stages.find_run(planned, arguments["work"])
        command(run=run, warehouse=arguments["warehouse"], as_json=as_json)

    return wrapped


@click.command(cls=Sections)
@job_options
@click.option("--dry-run", is_flag=True, help="Plan, sample and print documents, tokens, time and cost; score nothing.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Score a sample: N documents from all over the corpus, into the table TABLE_sample.",
)
@click.option(
    "--price-per-hour",
    metavar="PRICE",
    callback=price_of,
    help="Of one worker, for the cost in a dry run: 3.5, $3.50 or '3.50 EUR'.",
)
@as_json_option
def run(dry_run: bool, limit: int | None, price_per_hour: Price | None, as_json: bool, **arguments: Any) -> None:
    """Score a corpus into a warehouse table: plan, score, validate, load, report.

    Running it again does only what is new; when nothing is, it says so.
    """
    job = job_from(arguments)
    if dry_run and limit is not None:
        raise JobError("--dry-run together with --limit", next_step="leave one of them out")
    if dry_run:
        _forecast(job, price_per_hour, as_json)
        return
    if price_per_hour is not None:
        raise JobError("--price-per-hour without --dry-run", next_step="add --dry-run, which prints the expected cost")
    _run(job if limit is None else _sampled(job, limit), as_json)


def _sampled(job: Job, limit: int) -> Job:
    made = stages.sample(job, limit)
    rejects = f", without {counted(made.rejects, 'reject')}" if made.rejects else ""
    documents, objects = counted(made.documents, "document"), counted(made.objects, "object")
    say(f"sample: {documents} of {objects}{rejects}, for the table {made.job.table}")
    return made.job


def _forecast(job: Job, price: Price | None, as_json: bool) -> None:
    stages.check_warehouse(job, dry=True)
    made = estimate(job, price.amount if price else None)
    if as_json:
        currency = {"currency": price.sign or price.code} if price and (price.sign or price.code) else {}
        print_facts({**made.to_json(), **currency}, as_json)
        return
    for name, value in forecast(made, price):
        click.echo(f"{name:<18}{value}")


def _run(job: Job, as_json: bool) -> None:
    stages.check_warehouse(job)
    planned = stages.plan(job)
    rows = f", {counted(planned.rows, 'document')}" if planned.rows is not None else ""
    partitions = counted(planned.partitions, "partition")
    say(f"plan: {counted(planned.objects, 'object')}{rows}, {partitions}, {planned.pending:,} to score")
    if planned.kept_cuts:
        keep = "keep the cut in which they were" if planned.kept_cuts > 1 else "keeps the cut in which it was"
        say(f"plan: {counted(planned.kept_cuts, 'object')} {keep} scored")
    if planned.pending:
        _score(planned.run)
    validated = _validate(planned.run, job)
    found = f"{counted(validated.errors, 'error')}, {counted(validated.warnings, 'warning')}"
    say(f"validate: {counted(validated.rows, 'document')}, {found}")
    loaded = stages.load(planned.run, warehouse=job.warehouse)
    outdated = f", {counted(loaded.rows_outdated, 'document')} outdated" if loaded.rows_outdated else ""
    departed = f", {counted(loaded.rows_departed, 'document')} departed" if loaded.rows_departed else ""
    rows, rejects = counted(loaded.rows_loaded, "row"), counted(loaded.rejects_loaded, "reject")
    say(f"load: {rows}, {rejects}{outdated}{departed}")
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
    damaged = f"{counted(withdrawn, 'partition')} {'is' if withdrawn == 1 else 'are'} missing or damaged"
    say(f"validate: {damaged}, and scored again")
    _score(run)
    return stages.validate(run, warehouse=job.warehouse)


def _score(run: str) -> ScoreSummary:
    """Score what is pending; who interrupts it is told what that costs."""
    try:
        with scoring_progress() as progress:
            return stages.score(run, progress=progress)
    except KeyboardInterrupt:
        found = stages.status(run)
        kept = f"{found.partitions - found.pending:,} of {found.partitions:,} partitions"
        say(f"stopped: {kept} are kept, and the same command goes on from there")
        raise


@click.command(cls=Sections)
@job_options
@as_json_option
def plan(as_json: bool, **arguments: Any) -> None:
    """List the corpus and freeze its partitions; prints the run that the other stages take."""
    job = job_from(arguments)
    stages.check_warehouse(job)
    print_facts(stages.plan(job).to_json(), as_json)


@click.command(cls=Sections)
@_on_run_or_job
def score(run: str, warehouse: str | None, as_json: bool) -> None:  # noqa: ARG001  # every stage takes the same
    """Score what is pending of a run."""
    print_facts(_score(run).to_json(), as_json)


@click.command(cls=Sections)
@_on_run_or_job
def validate(run: str, warehouse: str | None, as_json: bool) -> None:
    """Check the scores of a run; an error-level finding stops the load."""
    print_facts(stages.validate(run, warehouse=warehouse).to_json(), as_json)


@click.command(cls=Sections)
@_on_run_or_job
def load(run: str, warehouse: str | None, as_json: bool) -> None:
    """Load what validation checked into the warehouse table."""
    print_facts(stages.load(run, warehouse=warehouse).to_json(), as_json)


@click.command()
@on_a_run
@_warehouse_again
@click.option("--open", "in_browser", is_flag=True, help="Open its page in a browser; of a bucket, by a signed link.")
@as_json_option
def report(run: str | None, work: str | None, warehouse: str | None, in_browser: bool, as_json: bool) -> None:
    """Make the report of a loaded run, and print it: its address WORK/runs/RUN_ID, or the beginning of its id.

    Without RUN, that of the latest.
    """
    made = stages.report(stages.find_run(run, work), warehouse=warehouse)
    if in_browser and not webbrowser.open(link_of(made.page)):
        say(f"report: no browser was found; the page is {made.page}")
    if as_json:
        click.echo(orjson.dumps(made.to_json(), option=orjson.OPT_INDENT_2))
    else:
        show(made)
