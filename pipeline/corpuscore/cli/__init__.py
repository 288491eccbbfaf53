"""The command line, `corpuscore COMMAND`.

Exit status: 0 success, 1 a failed run, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from corpuscore import __version__
from corpuscore.addresses import shown
from corpuscore.errors import CorpuscoreError, JobError


class _Entry(NamedTuple):
    """A command: the module that defines it, and its line in `corpuscore --help`, which imports no such module."""

    module: str
    summary: str


#: In the order in which people meet them. A module is imported when its command is called, so that `corpuscore status`
#: needs no torch.
COMMANDS = {
    "run": _Entry("stages", "Score a corpus into a warehouse table: all stages, one after the other."),
    "plan": _Entry("stages", "List the corpus and freeze its partitions; prints the run."),
    "score": _Entry("stages", "Score what is pending of a run."),
    "validate": _Entry("stages", "Check the scores of a run before they are loaded."),
    "load": _Entry("stages", "Load what validation checked into the warehouse table."),
    "report": _Entry("stages", "Make the report of a loaded run, and print it."),
    "runs": _Entry("looking", "List the runs of a work location."),
    "status": _Entry("looking", "Say how far a run is."),
    "rejects": _Entry("looking", "List the documents of a run that were not scored, and why."),
    "check": _Entry("check", "Say what is odd about a corpus and a model, before anything is spent."),
    "prune": _Entry("prune", "Remove the rows of objects that have left a corpus."),
    "airflow": _Entry("airflow", "Bring corpuscore to an Airflow: install its DAGs."),
    "models": _Entry("models", "List the models that come with corpuscore."),
    "serve": _Entry("serve", "Answer texts with scores, by gRPC and HTTP."),
    "bench": _Entry("bench", "Measure this engine beside others on texts of yours."),
    "train": _Entry("train", "Train a student of any scorer, or fine-tune a BERT classifier."),
    "evaluate": _Entry("train", "Compare a model's scores with gold labels."),
    "completion": _Entry("completion", "Print what makes a shell complete commands and options."),
}


_ARGUMENTS = "corpuscore.arguments"


class _Commands(click.Group):
    """Finds commands by name, and turns errors made on purpose into one line and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        return getattr(import_module(f"corpuscore.cli.{entry.module}"), cmd_name) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, 1)):
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names by the list above, so that a Tab loads no command but the one that is typed."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = [(name, entry) for name, entry in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=entry.summary) for name, entry in found]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            said = _without_secrets(error.format_message(), ctx.meta[_ARGUMENTS])
            raise click.UsageError(said, error.ctx) from None
        except KeyboardInterrupt:
            ctx.exit(130)
        except CorpuscoreError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            ctx.exit(2 if isinstance(error, JobError) else 1)


def _without_secrets(message: str, arguments: list[str]) -> str:
    """A message about arguments, which click repeats as they were typed, without the secrets in them."""
    for typed in arguments:
        for value in (typed, typed.partition("=")[2]):
            if value and shown(value) != value:
                message = message.replace(value, shown(value))
    return message


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="corpuscore")
@click.option("--verbose", is_flag=True, help="Log what libraries say, too.")
def main(verbose: bool) -> None:
    """Score every document of a corpus with a transformer classifier, exactly once, into a warehouse table."""
    # Log lines go to standard error; standard output belongs to the summary.
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr
    )
