"""`corpuscore airflow`: what an Airflow needs of corpuscore."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from corpuscore.cli.display import say
from corpuscore.errors import JobError
from corpuscore.files import write_whole


@click.group()
def airflow() -> None:
    """Bring corpuscore to an Airflow."""


@airflow.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also in place of files that were changed.")
def install(folder: Path, force: bool) -> None:
    """Write the DAGs into FOLDER, where an Airflow finds them; its [core] dags_folder or a folder in it.

    Schedule and defaults are set in Airflow's configuration, section [corpuscore], so that these files stay as they
    are, and the next version's can take their place.
    """
    dags = {
        file.name: file.read_bytes()
        for file in files("corpuscore.orchestration").joinpath("dags").iterdir()
        if file.name.endswith(".py")
    }
    changed = [name for name in sorted(dags) if (path := folder / name).exists() and path.read_bytes() != dags[name]]
    if changed and not force:
        raise JobError(
            f"{folder} has {' and '.join(changed)}, and what is in it is not what would be written",
            rule="Files that somebody may have changed are not overwritten",
            next_step="compare them; --force writes the ones of this version",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(dags):
        write_whole(folder / name, dags[name])
        say(f"airflow: {folder / name}")
    say(
        "airflow: corpuscore with its extra `airflow` has to be installed for scheduler, triggerer, workers, API server"
    )
