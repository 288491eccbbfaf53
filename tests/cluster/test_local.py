from __future__ import annotations

import io
import logging
import os
import sys

import pytest
from distributed import Client
from distributed.comm.core import CommClosedError

from corpuscore.cluster import cluster_at, local_cluster
from corpuscore.errors import ClusterError
from corpuscore.scoring import devices
from corpuscore.scoring.devices import visible_gpus
from tests.servers.dask import ask


def test_local_is_a_cluster_of_its_own_and_an_address_is_none() -> None:
    """`local` makes workers for the time of the block; any other address is taken as it is."""
    with cluster_at("local", 1, "cpu") as address:
        assert ask(address, sum, [1, 2]) == 3
    with cluster_at("tcp://scheduler:8786") as address:
        assert address == "tcp://scheduler:8786"


def _logged() -> list[str]:
    """What a worker's process shows of a heartbeat that failed, and of an error that is no lost connection."""
    shown = io.StringIO()
    logger = logging.getLogger("distributed.worker")
    logger.addHandler(handler := logging.StreamHandler(shown))
    handler.setLevel(logging.ERROR)  # the worker itself may tell of its plugins meanwhile
    for error in (CommClosedError("in <TCP>: Stream is closed"), CommClosedError(), KeyError("x")):
        try:
            raise error
        except (CommClosedError, KeyError):
            logger.exception("Failed to communicate with scheduler during heartbeat.")
    logger.removeHandler(handler)
    return shown.getvalue().splitlines()


def test_a_connection_that_a_worker_loses_is_a_line() -> None:
    """No traceback of Dask's where a cluster ends while a worker speaks; other errors have theirs."""
    with local_cluster(1, "cpu") as cluster:
        *lost, other, trace = ask(cluster.scheduler_address, _logged)[:4]
    said = "Failed to communicate with scheduler during heartbeat"
    assert lost == [f"{said}: in <TCP>: Stream is closed", f"{said}: CommClosedError"]
    assert other == f"{said}."
    assert trace.startswith("Traceback")


def test_a_gpu_that_is_not_there_is_a_clear_error() -> None:
    """device=cuda on a machine without one says so, before a process is started."""
    if visible_gpus():
        with local_cluster(1, "cuda") as there:
            assert there.scheduler_address
    else:
        with pytest.raises(ClusterError, match="no GPU"), local_cluster(1, "cuda"):
            pass


def test_a_gpu_that_is_hidden_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES decides, whatever the machine has."""
    monkeypatch.setattr(devices, "_installed_gpus", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ClusterError, match="no GPU.*CUDA_VISIBLE_DEVICES"), local_cluster(1, "cuda"):
        pass


def test_each_gpu_has_a_worker_without_the_cuda_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Worker processes see one GPU each, never all the first; what dask-cuda would add is said."""
    monkeypatch.setattr(devices, "_installed_gpus", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-84fd49f2,0")
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with local_cluster(2, "cuda") as there, Client(there) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
    assert sorted(seen.values()) == ["3", "GPU-84fd49f2"]
    assert "corpuscore[cuda]" in caplog.text


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models on one GPU would fight for its memory."""
    monkeypatch.setattr(devices, "_installed_gpus", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with pytest.raises(ClusterError, match="3 workers.*2 GPUs"), local_cluster(3, "auto"):
        pass
