"""A client of a cluster by its address: opened with a limit, closed with a limit, its errors in our words."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from distributed import Client
from distributed.comm import registry
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.security import Security

from corpuscore.addresses import HIDDEN, is_readable, shown
from corpuscore.cluster.quiet import log_losses_in_a_line
from corpuscore.cluster.tls import mismatch
from corpuscore.errors import ClusterError, SchedulerLost

log = logging.getLogger(__name__)

#: How long to wait for a scheduler's answer when a client is opened.
CONNECT_SECONDS = 20.0

#: How long a client may take to say goodbye; then its connections are cut.
CLOSE_SECONDS = 5.0

#: Why a client that was connected cannot be used any more.
LOST = ConnectionError("the connection was lost")


@asynccontextmanager
async def connected(address: str, security: Security | None = None, name: str = "corpuscore") -> AsyncIterator[Client]:
    """A client on this event loop for the time of the block; see open_client."""
    client = await open_client(address, security, name)
    try:
        yield client
    finally:
        await close_client(client)


async def open_client(address: str, security: Security | None = None, name: str = "corpuscore") -> Client:
    """A client on this event loop, connected.

    Args:
        address: `tcp://host:port` or `tls://host:port`.
        security: None takes TLS files from Dask's own configuration (`distributed.comm.tls`).
        name: Shown by the scheduler.

    Raises:
        SchedulerLost: Nobody answers there.
        ClusterError: The address or the TLS settings cannot be used, or the two sides do not fit together.
    """
    security = _usable(address, security)
    log_losses_in_a_line()
    client = Client(
        address, security=security, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS, name=name
    )
    try:
        await asyncio.wait_for(client, 2 * CONNECT_SECONDS)  # Dask has a limit for each step of its own
    except BaseException as error:
        await close_client(client)
        # TimeoutError is an OSError; a stream on which the other side spoke before TLS began is a ValueError.
        if not isinstance(error, OSError | ImportError | RuntimeError | ValueError):
            raise
        raise await _explained(address, security, error) from error
    return client


async def close_client(client: Client) -> None:
    """Close it; where its scheduler keeps it waiting, its connections are cut, and nothing of it is left."""
    with _no_word_of_cancelling():
        with suppress(TimeoutError, OSError):
            await client.close(timeout=CLOSE_SECONDS)
        if client.status != "closed":
            _cut(client)
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(client._close(fast=True), CLOSE_SECONDS)


@contextmanager
def _no_word_of_cancelling() -> Iterator[None]:
    """A client that is closed while it connects again logs a traceback of its own cancelling."""

    def wanted(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

    logger = logging.getLogger("distributed.client")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def _cut(client: Client) -> None:
    if client.scheduler_comm is not None:
        client.scheduler_comm.abort()
    for held in (client.rpc.available, client.rpc.occupied):
        for comm in [comm for comms in held.values() for comm in comms]:
            comm.abort()


def address_of(client: Client) -> str:
    """Address of a client's scheduler."""
    return str(client.scheduler.address) if client.scheduler else str(client._start_arg)


def unreachable(address: str, error: BaseException) -> SchedulerLost:
    """The error for a scheduler that does not answer."""
    said = str(error) or "no answer in time"
    return SchedulerLost(
        f"The Dask scheduler at {address} does not answer ({type(error).__name__}: {said})",
        next_step="check that it runs and that this machine reaches it",
    )


def _usable(address: str, security: Security | None) -> Security:
    """Find out before a client exists: one that fails in its constructor is never closed."""
    if not is_readable(address):
        raise _unusable(HIDDEN, "it is not written as an address is, and may hold a secret")
    if shown(address) != address:
        raise ClusterError(
            f"The cluster address {shown(address)!r} holds a login",
            rule="A Dask scheduler takes none; who may connect is said by the certificates of distributed.comm.tls",
            next_step="leave user and password out of --cluster",
        )
    try:
        scheme, location = parse_address(address, strict=True)
        registry.get_backend(scheme)
        if scheme in ("tcp", "tls"):
            parse_host_port(location)
        security = security or Security()
        context = security.get_connection_args("client")["ssl_context"]
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise _unusable(address, str(error)) from error
    if scheme == "tls" and context is None:
        raise _unusable(address, "distributed.comm.tls names no ca-file, or no client cert")
    if scheme == "tcp" and security.require_encryption:
        raise _unusable(address, "distributed.comm.require-encryption is set, and tcp:// has none")
    return security


def _unusable(address: str, why: str) -> ClusterError:
    return ClusterError(
        f"The cluster address {address!r} cannot be used: {why}",
        rule="An address is tcp://host:port, or tls://host:port with distributed.comm.tls configured",
        next_step="correct --cluster, or Dask's TLS configuration",
    )


async def _explained(address: str, security: Security, error: BaseException) -> ClusterError | SchedulerLost:
    if isinstance(error, ImportError):  # the scheduler's own words about versions
        return ClusterError(
            f"The Dask scheduler at {address} refuses this client: {error}",
            next_step="run this command in the same image as the scheduler",
        )
    context: ssl.SSLContext | None = security.get_connection_args("client")["ssl_context"]
    if why := await asyncio.to_thread(mismatch, address, context):
        return ClusterError(
            f"The Dask scheduler at {address} cannot be talked to: {why}",
            rule="Both sides speak TLS, with certificates of the same CA (distributed.comm.tls), or neither does",
            next_step="correct the scheme of --cluster, or the TLS files on one side",
        )
    return unreachable(address, error)
