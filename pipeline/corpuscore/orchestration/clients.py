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

    client: Client
    users: int = 0


@dataclass(slots=True)
class _Place:
    """Where those who want a client of one cluster meet; a client that was cut off is replaced there, not forgotten."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shared: _Shared | None = None


#: A client belongs to one event loop. A triggerer has one, with hundreds of triggers; `dag.test()` has one a trigger.
_places: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClusterAccess, _Place]] = WeakKeyDictionary()


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

    Who asks while it is cut off from its scheduler gets another. Those who have it keep it, since it may find its way
    back, and the last of them closes it.

    Raises:
        ClusterUnavailable: Nobody answers there.
    """
    place = _places.setdefault(asyncio.get_running_loop(), {}).setdefault(access, _Place())
    async with place.lock:
        if place.shared is None or place.shared.client.status != "running":
            place.shared = _Shared(await _connect(access))
        shared = place.shared
        shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if not shared.users:
            if place.shared is shared:
                place.shared = None
            await shared.client.close()


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
