"""Which device, and how many threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from corpuscore.errors import JobError
from corpuscore.scoring import devices
from corpuscore.scoring.devices import cpu_threads, resolve_device


def test_an_unknown_device_is_the_arguments_fault() -> None:
    """So is cuda without a GPU; auto takes what there is."""
    with pytest.raises(JobError, match="a device is auto, cpu or cuda"):
        resolve_device("tpu")
    if torch.cuda.is_available():
        assert resolve_device("auto") == "cuda"
    else:
        assert resolve_device("auto") == "cpu"
        with pytest.raises(JobError, match="no CUDA device here"):
            resolve_device("cuda")


def test_without_a_driver_torch_is_not_asked() -> None:
    """It would take seconds, at every start of a CPU worker."""
    code = (
        "import sys; from corpuscore.scoring.devices import resolve_device\n"
        "print(resolve_device('auto'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = {"cuda True"} if torch.cuda.is_available() else {"cpu False", "cpu True"} if _driver() else {"cpu False"}
    assert done.stdout.strip() in expected


def _driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("variable", "threads"), [("3", 3), ("4,2", 4), ("1", None), ("", None), ("many", None)])
def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, threads: int | None) -> None:
    """An argument wins; then OMP_NUM_THREADS, but for the 1 of Dask's nannies; then the cores of this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert cpu_threads(None) == (threads or len(os.sched_getaffinity(0)))
    assert cpu_threads(7) == 7


@pytest.mark.parametrize(
    ("variable", "gpus"),
    [
        (None, ("0", "1", "2", "3")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2", ("2",)),
        ("3, 1", ("3", "1")),
        ("0,4,1", ("0",)),
        ("1,-1,0", ("1",)),
        ("GPU-84fd49f2,MIG-41b3359c", ("GPU-84fd49f2", "MIG-41b3359c")),
        ("0,none,1", ("0",)),
    ],
)
def test_gpus_are_those_that_cuda_would_see(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, gpus: tuple[str, ...]
) -> None:
    """CUDA_VISIBLE_DEVICES chooses and orders them, and ends at the first name that is none."""
    monkeypatch.setattr(devices, "_installed_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert devices.visible_gpus() == gpus


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variable says; and asking the driver needs no package."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-84fd49f2")
    if not _driver():
        assert devices._installed_gpus() == 0
    monkeypatch.setattr(devices, "_installed_gpus", lambda: 0)
    assert devices.visible_gpus() == ()
