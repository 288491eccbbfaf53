"""`corpuscore models`: what can be scored with, out of the box."""

from __future__ import annotations

import click
import orjson

from corpuscore.cli.display import as_json_option
from corpuscore.scoring import describe_scorer


@click.command()
@as_json_option
def models(as_json: bool) -> None:
    """List the models that come with corpuscore; any checkpoint folder or hub name works, too."""
    found = [describe_scorer("bundled", device="cpu")]
    if as_json:
        click.echo(orjson.dumps([info.to_json() for info in found], option=orjson.OPT_INDENT_2))
        return
    for info in found:
        click.echo(
            f"{info.model}  {info.backend}, {info.parameters:,} parameters, "
            f"{len(info.labels)} labels ({info.activation})"
        )
        click.echo(f"    {', '.join(info.labels)}")
