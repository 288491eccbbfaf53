"""Worker processes on this machine: one a GPU where there are any, else CPU workers sized to the cores."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

from corpuscore.cluster.keeper import Keeper
from corpuscore.errors import ClusterError
from corpuscore.records import Device
from corpuscore.scoring.devices import visible_gpus

log = logging.getLogger(__name__)

#: Threads of a CPU worker's model; more cores make more workers, since small models gain little from more threads.
_THREADS_PER_WORKER = 4

#: Tasks that one worker runs side by side, so that a partition is read and written while another is in the model.
_TASKS_PER_WORKER = 2

#: Of scoring tasks, by their keys' prefix: minutes long, and not to be guessed as half a second by the scheduler's work
#: stealing. Of memory: there are no results to spill, and a worker that pauses takes no work; one that takes more than
#: its share ends.
_CONFIG: dict[str, Any] = {
    "distributed.scheduler.default-task-durations": {"score": "10m"},
    "distributed.scheduler.allowed-failures": 1,  # who was there when two workers died is tried alone
    "distributed.comm.timeouts.connect": "30s",
    "distributed.deploy.lost-worker-timeout": "1d",  # else Dask ends nannies that are busy starting a worker
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["corpuscore.cluster.leaving"],
}


@contextmanager
def cluster_at(address: str = "local", workers: int | None = None, device: Device = "auto") -> Iterator[str]:
    """The scheduler's address for the time of the block: a new local cluster's, or the one that is given.

    Args:
        address: `local`, or `tcp://host:port` or `tls://host:port`.
        workers: Of a local cluster.
        device: Of a local cluster.

    Raises:
        ClusterError, ClusterUnavailable: See local_cluster.
    """
    if address != "local":
        yield address
        return
    with local_cluster(workers, device) as cluster:
        yield cluster.scheduler_address


@contextmanager
def local_cluster(
    workers: int | None = None, device: Device = "auto", *, dashboard: str = "127.0.0.1:0"
) -> Iterator[LocalCluster]:
    """Worker processes on this machine, which a keeper starts, watches and ends with the block.

    Args:
        workers: Number of processes; None takes what the machine carries.
        device: auto takes GPUs where there are any.
        dashboard: Address of the dashboard; port 0 takes a free one.

    Raises:
        ClusterError: device=cuda without a GPU, or more workers than GPUs.
        ClusterUnavailable: Workers end as soon as they have started.
    """
    gpus = visible_gpus() if device != "cpu" else ()
    if device == "cuda" and not gpus:
        raise ClusterError(
            "--device cuda was asked for, and no GPU was found on this machine",
            rule="a GPU needs an NVIDIA driver, and CUDA_VISIBLE_DEVICES must not hide it",
            next_step="check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu",
        )
    count = workers or (len(gpus) if gpus else max(1, round(_cores() / _THREADS_PER_WORKER)))
    with dask.config.set({**_CONFIG, **({} if gpus else _threads(count))}):  # as long as workers may be started
        with _interrupts_kept_off():
            cluster = _cuda_workers(count, gpus, dashboard) if gpus else _cpu_workers(count, dashboard)
        keeper, interrupted = Keeper(cluster), False
        try:
            keeper.wait()
            yield cluster
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            keeper.close(at_once=interrupted)


@contextmanager
def _interrupts_kept_off() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal's group; workers leave it to who started them, and show no traceback.

    A new thread has the mask of its maker, and a new process that of its maker's thread: the cluster's event loop,
    whose thread starts in this block, hands it on to all workers that it ever starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _threads(workers: int) -> dict[str, Any]:
    threads = str(max(1, _cores() // workers))
    # A nanny holds its worker to one BLAS thread unless told otherwise.
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    return {"distributed.nanny.pre-spawn-environ": environment}


def _cpu_workers(workers: int, dashboard: str) -> LocalCluster:
    """A cluster that is to have so many workers; each takes its share of the memory of this machine or container."""
    cluster = LocalCluster(
        n_workers=0,
        threads_per_worker=_TASKS_PER_WORKER,
        dashboard_address=dashboard,
        memory_limit=MEMORY_LIMIT // workers,
        host="127.0.0.1",
    )
    for _ in range(workers):
        cluster.worker_spec.update(cluster.new_worker_spec())
    return cluster


def _cuda_workers(workers: int, gpus: Sequence[str], dashboard: str) -> LocalCluster:
    if workers > len(gpus):
        raise ClusterError(
            f"{workers} workers were asked for on {len(gpus)} GPUs",
            rule="A GPU carries one worker",
            next_step=f"use --workers {len(gpus)} or fewer",
        )
    options: dict[str, Any] = {
        "n_workers": workers,
        "threads_per_worker": _TASKS_PER_WORKER,
        # What CUDA maps of its device counts as a process's memory, so that a share of the machine's says nothing; the
        # device's own memory is the engine's affair, which halves a pack that does not fit.
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
        for _ in range(n_workers):
            self.worker_spec.update(self.new_worker_spec())

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """A worker on the first GPU that has none."""
        taken = {spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in self.worker_spec.values()}
        gpu = next(gpu for gpu in self._gpus if gpu not in taken)
        ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
        return {name: {**spec, "options": {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": gpu}}}}
