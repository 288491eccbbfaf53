"""Whether workers fit their client: the same versions of what both sides unpickle."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from distributed import Client, versions

from corpuscore import __version__
from corpuscore.cluster.connecting import LOST, address_of, unreachable
from corpuscore.cluster.shown import WorkShown
from corpuscore.errors import ClusterError

#: For answers of all workers; one that hangs is found by its silence, not here.
ANSWER_SECONDS = 20.0


async def check(client: Client, workers: Collection[str] | None = None) -> int:
    """Make sure that workers fit this client; give all, and those to come, their figures.

    A worker that does not answer is left to whoever watches the cluster.

    Args:
        client: Of the cluster; used on its own event loop.
        workers: Addresses; None takes all that there are.

    Returns:
        How many workers answered.

    Raises:
        SchedulerLost: The scheduler does not answer.
        ClusterError: Other versions of Python, Dask or corpuscore there than here.
    """
    scheduler = client.scheduler
    if scheduler is None:
        raise unreachable(address_of(client), LOST)
    try:
        if workers is None:
            workers = (await asyncio.wait_for(scheduler.identity(n_workers=-1), ANSWER_SECONDS))["workers"].keys()
        facts = await _versions(scheduler, workers)
        _refuse_others(facts)
        with suppress(TimeoutError):  # the scheduler keeps the plugin, and gives it to whoever answers late
            await asyncio.wait_for(client.register_plugin(WorkShown()), ANSWER_SECONDS)
    except OSError as error:  # TimeoutError is one
        raise unreachable(address_of(client), error) from error
    return len(facts)


def _refuse_others(facts: dict[str, dict[str, Any]]) -> None:
    problems = list(differences(versions.get_versions(packages=["corpuscore"]), facts))
    if problems:
        raise ClusterError(
            "; ".join(problems),
            rule="Client and workers run the same versions of Python (minor), dask, distributed and corpuscore",
            next_step="run this command in the same image as the workers",
        )


async def _versions(scheduler: Any, workers: Collection[str]) -> dict[str, dict[str, Any]]:
    """What each worker runs: all asked at once, and one by one where one of them keeps the others' answers back."""
    try:
        return await _answers(scheduler, workers)
    except TimeoutError:
        each = await asyncio.gather(*(_answers(scheduler, [one]) for one in workers), return_exceptions=True)
        return {name: facts for found in each if isinstance(found, dict) for name, facts in found.items()}


async def _answers(scheduler: Any, workers: Collection[str]) -> dict[str, dict[str, Any]]:
    question = {"op": "versions", "packages": ["corpuscore"]}
    asked = scheduler.broadcast(msg=question, workers=list(workers), on_error="ignore")
    found = await asyncio.wait_for(asked, ANSWER_SECONDS)
    return {name: facts for name, facts in found.items() if isinstance(facts, dict)}


def differences(here: dict[str, Any], workers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A sentence for each version on a worker that is not this client's."""
    mine = _comparable(here)
    mine["corpuscore"] = __version__
    for name, facts in workers.items():
        theirs = _comparable(facts)
        for what, version in mine.items():
            if theirs[what] != version:
                yield f"worker {name} has {what} {theirs[what] or 'not installed'}, this client {version}"


def _comparable(facts: dict[str, Any]) -> dict[str, str | None]:
    packages = facts["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {
        "Python": python,
        "dask": packages["dask"],
        "distributed": packages["distributed"],
        "corpuscore": packages.get("corpuscore"),
    }
