"""One run of the DAG on the sample corpus, followed from the terminal."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra.stack.airflow import Airflow

_POLL_SECONDS = 1.0
_LOG_LINES = 25
_STAGES = ("plan", "score", "validate", "load", "report")
_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


class RunError(Exception):
    """The DAG run failed; the message is the end of the failed task's log."""


def run(airflow: Airflow, console: Console) -> dict[str, Any]:
    """Trigger the DAG with its defaults and follow it to its end.

    Returns:
        The report, as JSON.

    Raises:
        RunError: A task failed.
    """
    run_id = airflow.trigger({})
    console.print(f"Run {run_id} of the DAG score_corpus: {airflow.url}/dags/score_corpus/runs/{run_id}")
    state = _follow(airflow, run_id, console)
    if state != "success":
        raise RunError(_what_failed(airflow, run_id))
    report: dict[str, Any] = airflow.xcom(run_id, "report")
    return report


def _follow(airflow: Airflow, run_id: str, console: Console) -> str:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=len(_STAGES), detail="")
        said = ""
        while (state := airflow.run_state(run_id)) in ("queued", "running"):
            done, doing, detail = _standing(airflow, run_id)
            progress.update(bar, completed=done, description=doing, detail=detail)
            if f"{doing} {detail}" != said and not console.is_terminal:
                said = f"{doing} {detail}"
                console.print(f"  {said}")
            time.sleep(_POLL_SECONDS)
    return state


def _standing(airflow: Airflow, run_id: str) -> tuple[float, str, str]:
    """How many stages are done, which one is going on, and how far it is."""
    tasks = airflow.tasks(run_id)
    for at, stage in enumerate(_STAGES):
        states = Counter(task["state"] or "waiting" for task in tasks if task["task_id"] == stage)
        ended = sum(states[state] for state in _ENDED)
        if ended < states.total():
            partitions, detail = _partitions(airflow, run_id) if stage == "score" else (0.0, "")
            return at + partitions, stage, detail
    return len(_STAGES), "report", ""


def _partitions(airflow: Airflow, run_id: str) -> tuple[float, str]:
    """Share of the run's partitions that have receipts."""
    from corpuscore.stages import pending

    planned = airflow.xcom(run_id, "plan", "planned")
    if not planned or not planned["pending"]:
        return 0.0, ""
    done = planned["pending"] - pending(planned["run"])
    return done / planned["pending"], f"{done} of {planned['pending']} partitions"


def _what_failed(airflow: Airflow, run_id: str) -> str:
    failed = [task for task in airflow.tasks(run_id) if task["state"] == "failed"]
    if not failed:
        return "The run failed without a failed task"
    task = failed[0]
    lines = airflow.log(run_id, task)[-_LOG_LINES:]
    return "\n".join([f"The task {task['task_id']} failed. The end of its log:", *(f"  {line}" for line in lines)])
