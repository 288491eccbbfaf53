"""`corpuscore prune`: remove the rows of objects that have left a corpus."""

from __future__ import annotations

import click
import orjson

from corpuscore import stages
from corpuscore.cli.display import as_json_option, say
from corpuscore.job import Job


@click.command()
@click.option("--corpus", metavar="URI", multiple=True, required=True, help="Objects, prefixes or glob patterns.")
@click.option("--work", metavar="URI", required=True, help="Work location of the runs that filled the table.")
@click.option("--warehouse", metavar="URL", required=True, help="Where the table is.")
@click.option("--table", default="scores", show_default=True, help="Table of the scores.")
@click.option("--dry-run", is_flag=True, help="Count what would go; remove nothing.")
@as_json_option
def prune(corpus: tuple[str, ...], work: str, warehouse: str, table: str, dry_run: bool, as_json: bool) -> None:
    """Remove the rows of objects that have left a corpus, by whatever model they were scored.

    Nothing is scored. Other corpora in the same table stay, and so does what a later run has seen.
    """
    job = Job.build({"corpus": corpus, "work": work, "warehouse": warehouse, "table": table})  # its checks are these
    found = stages.prune(job.corpus, job.work, job.warehouse, job.table, dry_run=dry_run)
    if as_json:
        click.echo(orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2))
        return
    such = f" (such as {found.examples[0]})" if found.examples else ""
    say(f"prune: {found.rows:,} documents of {found.objects:,} objects{such} are no longer in the corpus")
    say("prune: nothing was removed" if dry_run else f"prune: {found.removed:,} rows and rejects were removed")
