"""Which cluster: local CPU workers, local GPU workers (dask-cuda), or one that is there already, by its address."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, LocalCluster, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from corpuscore import __version__
from corpuscore.addresses import shown
from corpuscore.errors import ClusterError, ClusterUnavailable
from corpuscore.records import Device
from corpuscore.scoring.devices import visible_gpus

log = logging.getLogger(__name__)

#: Threads of a CPU worker's model; more cores make more workers, since small models gain little from more threads.
_THREADS_PER_WORKER = 4

#: How long to wait for a scheduler.
CONNECT_SECONDS = 20.0

#: How long to wait for a cluster's first worker, and the key of Dask's configuration that says otherwise.
_WAIT = "10m"
_WAIT_KEY = "corpuscore.wait-for-workers"

#: Of a look at whether a worker has come, and of a line about it in the log.
_LOOK_SECONDS = 0.5
_LOG_SECONDS = 60.0

#: Tasks that one worker runs side by side, so that a partition is read and written while another is in the model.
_TASKS_PER_WORKER = 2

#: Of scoring tasks, by their keys' prefix: minutes long, and not to be guessed as half a second by the scheduler's work
#: stealing.
_CONFIG: dict[str, Any] = {
    "distributed.scheduler.default-task-durations": {"score": "10m"},
    "distributed.comm.timeouts.connect": "30s",
}


class RowsScored(WorkerPlugin):
    """Gives each worker a number of rows scored, shown in its metrics; comes back with a restarted worker."""

    name = "corpuscore-rows-scored"
    rows = 0

    def setup(self, worker: Worker) -> None:
        """Show the count with each heartbeat."""
        worker.metrics["rows_scored"] = lambda _: self.rows


@contextmanager
def local_cluster(
    workers: int | None = None, device: Device = "auto", *, dashboard: str = "127.0.0.1:0"
) -> Iterator[LocalCluster]:
    """Worker processes on this machine: one a GPU where there are any, else CPU workers sized to the cores.

    Args:
        workers: Number of processes; None takes what the machine carries.
        device: auto takes GPUs where there are any.
        dashboard: Address of the dashboard; port 0 takes a free one.

    Raises:
        ClusterError: device=cuda without a GPU, or more workers than GPUs.
    """
    gpus = visible_gpus() if device != "cpu" else ()
    if device == "cuda" and not gpus:
        raise ClusterError(
            "device=cuda was asked for, and no GPU was found on this machine",
            rule="a GPU needs an NVIDIA driver, and CUDA_VISIBLE_DEVICES must not hide it",
            next_step="check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu",
        )
    with (
        dask.config.set(_CONFIG),
        _cuda_workers(workers, gpus, dashboard) if gpus else _cpu_workers(workers, dashboard) as cluster,
    ):
        yield cluster


def _cpu_workers(workers: int | None, dashboard: str) -> LocalCluster:
    cores = len(os.sched_getaffinity(0))
    count = workers or max(1, round(cores / _THREADS_PER_WORKER))
    threads = str(max(1, cores // count))
    # A nanny holds its worker to one BLAS thread unless told otherwise.
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=_TASKS_PER_WORKER,
            dashboard_address=dashboard,
            memory_limit=0,
            host="127.0.0.1",
        )


def _cuda_workers(workers: int | None, gpus: Sequence[str], dashboard: str) -> LocalCluster:
    if workers and workers > len(gpus):
        raise ClusterError(
            f"{workers} workers were asked for on {len(gpus)} GPUs",
            rule="A GPU carries one worker",
            next_step=f"use --workers {len(gpus)} or fewer",
        )
    options: dict[str, Any] = {
        "n_workers": workers or len(gpus),
        "threads_per_worker": _TASKS_PER_WORKER,
        "memory_limit": 0,
        "dashboard_address": dashboard,
    }
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        log.warning(
            "dask-cuda is not installed: GPU workers are not bound to the cores beside their GPU, which is slower; "
            "pip install 'corpuscore[cuda]'."
        )
        return _OneGpuEach(gpus, host="127.0.0.1", **options)
    cluster: LocalCluster = LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=",".join(gpus),
        device_memory_limit=0,  # spilling follows task outputs, which are receipts here
        **options,
    )
    return cluster


class _OneGpuEach(LocalCluster):
    """Workers that see one GPU each, where dask-cuda is not there to do it; else all of them would take the first."""

    def __init__(self, gpus: Sequence[str], n_workers: int, **options: Any) -> None:
        self._gpus = gpus
        super().__init__(n_workers=0, **options)  # type: ignore[no-untyped-call]
        self.scale(n_workers)  # type: ignore[no-untyped-call]
        self.sync(self._correct_state)  # type: ignore[no-untyped-call]  # until they run, as LocalCluster waits

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """A worker on the first GPU that has none."""
        taken = {spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in self.worker_spec.values()}
        gpu = next(gpu for gpu in self._gpus if gpu not in taken)
        ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
        return {name: {**spec, "options": {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": gpu}}}}


@contextmanager
def connect(
    address: str = "local", workers: int | None = None, device: Device = "auto", *, wait: bool = True
) -> Iterator[Client]:
    """A client of a checked cluster: a new local one, or that at an address.

    Args:
        address: `local`, or `tcp://host:port` or `tls://host:port`. TLS files come from Dask's own configuration
            (`distributed.comm.tls`).
        workers: Of a local cluster.
        device: Of a local cluster.
        wait: For the first worker, where the cluster has none yet; a Dispatch does that by itself, and shows it.

    Raises:
        ClusterUnavailable: Nobody answers there, or no worker came in time.
        ClusterError: Client and workers do not fit together.
    """
    if address == "local":
        with local_cluster(workers, device) as cluster, Client(cluster) as client:
            client.register_plugin(RowsScored())
            yield client
        return
    with _client(address) as client:
        if not client.sync(check, client) and wait:
            client.sync(wait_for_workers, client)
        yield client


def _client(address: str) -> Client:
    if shown(address) != address:
        raise ClusterError(
            f"The cluster address {shown(address)!r} holds a login",
            rule="A Dask scheduler takes none; who may connect is said by the certificates of distributed.comm.tls",
            next_step="leave user and password out of --cluster",
        )
    try:
        return Client(address, timeout=CONNECT_SECONDS, name="corpuscore")
    except (OSError, TimeoutError) as error:
        raise unreachable(address, error) from error
    except (ValueError, TypeError) as error:
        raise ClusterError(
            f"The cluster address {address!r} cannot be used: {error}",
            rule="An address is tcp://host:port, or tls://host:port with distributed.comm.tls configured",
            next_step="correct --cluster, or Dask's TLS configuration",
        ) from error


def address_of(client: Client) -> str:
    """Address of a client's scheduler."""
    return str(client.scheduler.address) if client.scheduler else "an address that was left"


def unreachable(address: str, error: BaseException) -> ClusterUnavailable:
    """The error for a scheduler that does not answer."""
    return ClusterUnavailable(
        f"The Dask scheduler at {address} does not answer ({type(error).__name__}: {error})",
        next_step="check that it runs and that this machine reaches it",
    )


def threads_of(client: Client) -> int:
    """Threads of a cluster's workers, as the client heard last; for use on its event loop, where it does not ask.

    Raises:
        ClusterUnavailable: The client has given the cluster up.
    """
    if client.status == "closed":
        raise unreachable(address_of(client), ConnectionError("the connection was lost"))
    return int(client.scheduler_info().get("total_threads", 0))


async def wait_for_workers(client: Client, waiting: Callable[[float], None] = lambda _: None) -> None:
    """Wait for the first worker of a cluster that has none (yet), then check it; the log says so.

    How long is `corpuscore.wait-for-workers` in Dask's configuration, such as `DASK_CORPUSCORE__WAIT_FOR_WORKERS=30m`
    in the environment; ten minutes where nothing is said.

    Args:
        client: Of the cluster; used on its own event loop.
        waiting: Told now and then for how many seconds it has waited.

    Raises:
        ClusterUnavailable: None came in time, or the cluster cannot be reached.
        ClusterError: One came that does not fit this client.
    """
    patience, began, said = _patience_seconds(), time.monotonic(), -_LOG_SECONDS
    knock = client.submit(os.getpid, pure=False)  # an adaptive cluster starts workers only for tasks
    try:
        while not threads_of(client):
            waited = time.monotonic() - began
            if waited >= patience:
                raise _no_worker(client, waited)
            if waited - said >= _LOG_SECONDS:
                said = waited
                log.warning("%s has no worker: waited %.0f of %.0f s.", address_of(client), waited, patience)
            waiting(waited)
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        knock.release()
    await check(client)


def _patience_seconds() -> float:
    said = dask.config.get(_WAIT_KEY, default=_WAIT)
    try:
        return float(parse_timedelta(said))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ClusterError(
            f"{_WAIT_KEY} is {said!r} in Dask's configuration",
            rule="It is a time such as 90s or 15m",
            next_step="correct it in Dask's YAML files, or DASK_CORPUSCORE__WAIT_FOR_WORKERS in the environment",
        ) from error


def _no_worker(client: Client, waited: float) -> ClusterUnavailable:
    return ClusterUnavailable(
        f"The cluster at {address_of(client)} had no worker for {waited:,.0f} s",
        next_step="start workers, then run this again; DASK_CORPUSCORE__WAIT_FOR_WORKERS=30m waits longer",
    )


async def check(client: Client) -> int:
    """Make sure that all workers fit this client; give them, and those to come, their counters.

    Returns:
        How many workers there are.

    Raises:
        ClusterUnavailable: The cluster cannot be reached.
        ClusterError: Other versions of Python, Dask or corpuscore there than here.
    """
    try:
        versions = await client._get_versions(packages=["corpuscore"])
    except OSError as error:
        raise unreachable(address_of(client), error) from error
    workers = {name: facts for name, facts in versions["workers"].items() if isinstance(facts, dict)}
    problems = list(_differences(versions["client"], workers))
    if problems:
        raise ClusterError(
            "; ".join(problems),
            rule="Client and workers run the same versions of Python (minor), dask, distributed and corpuscore",
            next_step="run this command in the same image as the workers",
        )
    await client.register_plugin(RowsScored())
    return len(workers)


def _differences(here: dict[str, Any], workers: dict[str, Any]) -> Iterator[str]:
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
