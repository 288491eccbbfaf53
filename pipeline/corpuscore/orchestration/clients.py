"""Dask clients for Airflow: one look at a cluster before a task waits for it, one shared connection while many do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from distributed import Client

from corpuscore.cluster import check, unreachable
from corpuscore.orchestration.access import ClusterAccess

_CONNECT_SECONDS = 20


@dataclass(slots=True)
class _Shared:
    """A client and the number of those who use it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: Client | None = None
    users: int = 0


#: A client belongs to one event loop. A triggerer has one, with hundreds of triggers; `dag.test()` has one a trigger.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClusterAccess, _Shared]] = WeakKeyDictionary()


class Seen(NamedTuple):
    """What a look at a cluster found.

    Attributes:
        dashboard: Its address, as a browser reaches it.
        workers: How many there are; none is no error yet, since whoever follows the work waits for them.
    """

    dashboard: str
    workers: int


async def look_at(access: ClusterAccess) -> Seen:
    """Make sure that the cluster can do this work.

    Raises:
        ClusterUnavailable: Nobody answers there.
        ClusterError: Client and workers do not fit together.
    """
    client = await _connect(access)
    try:
        workers = await check(client)
        return Seen(access.dashboard or client.dashboard_link, workers)
    finally:
        await client.close()


@asynccontextmanager
async def shared_client(access: ClusterAccess) -> AsyncIterator[Client]:
    """A client of this cluster on this event loop, the same for all who ask; the last one out closes it.

    Raises:
        ClusterUnavailable: Nobody answers there.
    """
    shared = _shared.setdefault(asyncio.get_running_loop(), {}).setdefault(access, _Shared())
    async with shared.lock:
        if shared.client is None or shared.client.status != "running":
            shared.client = await _connect(access)
        client = shared.client
        shared.users += 1
    try:
        yield client
    finally:
        shared.users -= 1
        if not shared.users:
            shared.client = None
            await client.close()


async def _connect(access: ClusterAccess) -> Client:
    try:
        client: Client = await Client(
            access.address,
            security=access.security,
            asynchronous=True,
            set_as_default=False,
            timeout=_CONNECT_SECONDS,
            name="corpuscore-airflow",
        )
        return client
    except (OSError, TimeoutError) as error:
        raise unreachable(access.address, error) from error
