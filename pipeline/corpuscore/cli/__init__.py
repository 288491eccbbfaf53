"""The command line: `corpuscore run | plan | score | validate | load | report | status | check | models | ...`.

Exit status: 0 success, 1 a failed run, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

import click

from corpuscore import __version__
from corpuscore.addresses import shown
from corpuscore.errors import CorpuscoreError, JobError

#: Command -> module that defines it; imported only when it is called, so that `corpuscore status` needs no torch.
COMMANDS = {
    "run": "stages",
    "plan": "stages",
    "score": "stages",
    "validate": "stages",
    "load": "stages",
    "report": "stages",
    "status": "stages",
    "check": "check",
    "prune": "prune",
    "models": "models",
    "serve": "serve",
    "bench": "bench",
    "train": "train",
    "evaluate": "train",
}


_ARGUMENTS = "corpuscore.arguments"


class _Commands(click.Group):
    """Finds commands by name, and turns errors made on purpose into one line and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        return getattr(import_module(f"corpuscore.cli.{module}"), cmd_name) if module else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            said = _without_secrets(error.format_message(), ctx.meta[_ARGUMENTS])
            raise click.UsageError(said, error.ctx) from None
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
