"""Waiting for a cluster's first worker."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from distributed import Client

from corpuscore.cluster.connecting import LOST, address_of, unreachable
from corpuscore.cluster.versions import check
from corpuscore.errors import ClusterUnavailable
from corpuscore.patience import WORKERS, Wait

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


def threads_of(client: Client) -> int:
    """Threads of a cluster's workers, as the client heard last; for use on its event loop, where it does not ask.

    Raises:
        SchedulerLost: The client has given the cluster up.
    """
    if client.status == "closed":
        raise unreachable(address_of(client), LOST)
    return int(client.scheduler_info().get("total_threads", 0))


async def wait_for_workers(
    client: Client, waiting: Callable[[float], None] = lambda _: None, say: Callable[[str], None] = log.warning
) -> None:
    """Wait for the first worker of a cluster that has none (yet), then check it; the log says so.

    How long is `corpuscore.wait-for-workers` in Dask's configuration, such as `DASK_CORPUSCORE__WAIT_FOR_WORKERS=30m`
    in the environment; ten minutes where nothing is said.

    Args:
        client: Of the cluster; used on its own event loop.
        waiting: Told now and then for how many seconds it has waited.
        say: Takes a line each minute.

    Raises:
        SchedulerLost: The scheduler cannot be reached.
        ClusterUnavailable: No worker came in time.
        ClusterError: One came that does not fit this client.
    """
    wait = Wait(f"{address_of(client)} has no worker", WORKERS.seconds(), say)
    knock = client.submit(os.getpid, pure=False)  # an adaptive cluster starts workers only for tasks
    try:
        while not threads_of(client):
            if wait.over():
                raise ClusterUnavailable(
                    f"The cluster at {address_of(client)} had no worker for {wait.waited:,.0f} s",
                    next_step=f"start workers, then run this again; {WORKERS.variable}=30m waits longer",
                )
            waiting(wait.waited)
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        knock.release()
    await check(client)
