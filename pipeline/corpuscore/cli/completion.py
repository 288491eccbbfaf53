"""`corpuscore completion`: the lines that a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PROGRAM = "corpuscore"

_WHERE = {
    "bash": 'eval "$(corpuscore completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(corpuscore completion zsh)"   in ~/.zshrc',
    "fish": "corpuscore completion fish > ~/.config/fish/completions/corpuscore.fish",
}


@click.command(epilog="\b\n" + "\n".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None, "the shells above are those of click"  # noqa: S101
    click.echo(kind(ctx.find_root().command, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
