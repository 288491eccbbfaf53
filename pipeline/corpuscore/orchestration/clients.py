"""Dask clients for Airflow: one look at a cluster before a task waits for it, one shared connection while many do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from distributed import Client

from corpuscore.cluster import check, connected
from corpuscore.cluster.connecting import close_client, open_client
from corpuscore.errors import CorpuscoreError, SchedulerLost, from_json, to_json
from corpuscore.orchestration.access import ClusterAccess

_NAME = "corpuscore-airflow"


@dataclass(slots=True)
class _Shared:
    """A client and the number of those who use it."""

    client: Client
    users: int = 0


@dataclass(slots=True)
class _Place:
    """Where those who want a client of one cluster meet; a client that was lost is replaced there, not forgotten.

    Attributes:
        failed: The last attempt to connect, when it failed, and how: hundreds that wait for it do not each try again.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shared: _Shared | None = None
    failed: tuple[float, CorpuscoreError] | None = None


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
    async with connected(access.address, access.security, _NAME) as client:
        workers = await check(client)
        return Seen(access.dashboard or client.dashboard_link, workers)


@asynccontextmanager
async def shared_client(access: ClusterAccess) -> AsyncIterator[Client]:
    """A client of this cluster on this event loop, the same for all who ask; the last one out closes it.

    Who asks while it is cut off from its scheduler, or after somebody found the scheduler lost, gets another. Those who
    have it keep it, since it may find its way back, and the last of them closes it.

    Raises:
        SchedulerLost: Nobody answers there.
        ClusterError: The address cannot be used.
    """
    place = _places.setdefault(asyncio.get_running_loop(), {}).setdefault(access, _Place())
    shared = await _joined(place, access)
    try:
        yield shared.client
    except SchedulerLost:
        if place.shared is shared:
            place.shared = None
        raise
    finally:
        shared.users -= 1
        if not shared.users:
            if place.shared is shared:
                place.shared = None
            await close_client(shared.client)


async def _joined(place: _Place, access: ClusterAccess) -> _Shared:
    asked = time.monotonic()
    async with place.lock:
        if place.shared is None or place.shared.client.status != "running":
            if place.failed and place.failed[0] >= asked:
                raise from_json(to_json(place.failed[1]))
            try:
                place.shared = _Shared(await open_client(access.address, access.security, _NAME))
            except CorpuscoreError as error:
                place.failed = (time.monotonic(), error)
                raise
        place.shared.users += 1
        return place.shared
