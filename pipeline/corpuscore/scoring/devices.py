"""Which device `auto` means, which GPUs there are, and how many threads a forward pass takes on a CPU."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
from itertools import takewhile

from corpuscore.errors import JobError
from corpuscore.scoring.kernels import levels

DEVICES = ("cpu", "cuda")


def resolve_device(wanted: str) -> str:
    """cpu or cuda; `auto` is cuda where there is one. torch is asked only where there is an NVIDIA driver.

    Raises:
        JobError: An unknown device, or cuda where there is none.
    """
    if wanted not in ("auto", *DEVICES):
        raise JobError(f"--device {wanted!r}", rule=f"a device is auto, {' or '.join(DEVICES)}")
    if wanted == "cpu":
        return "cpu"
    if _has_cuda():
        return "cuda"
    if wanted == "cuda":
        raise JobError(
            "device='cuda', and there is no CUDA device here that torch sees",
            rule="cuda needs an NVIDIA GPU, its driver and a CUDA build of torch",
            next_step="check nvidia-smi and torch.version.cuda, or use --device cpu",
        )
    return "cpu"


def torch_arithmetic() -> str:
    """Tells apart the CPUs on which torch gives other bits: it has code for AVX-512, for AVX2, and for neither."""
    best = next(level for level in levels.of_cpu() if level in ("avx512", "avx2", "plain"))
    return f"torch-{best}"


def _has_cuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")  # the driver's; torch takes seconds to say that there is none
    except OSError:
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    return bool(importlib.import_module("torch").cuda.is_available())


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that a CUDA process started here would see, in its order, as CUDA_VISIBLE_DEVICES names them.

    Source: CUDA C++ programming guide, environment variables: only devices before the first invalid one are visible
    """
    installed = _installed_gpus()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not installed or wanted is None:
        return tuple(map(str, range(installed)))
    names = (name.strip() for name in wanted.split(","))
    return tuple(takewhile(lambda name: _names_a_gpu(name, installed), names))


def _names_a_gpu(name: str, installed: int) -> bool:
    return name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < installed)


def _installed_gpus() -> int:
    """How many GPUs the driver has, hidden ones included; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")  # part of it: no package is needed, and no CUDA context made
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if driver.nvmlInit_v2() == 0:
        driver.nvmlDeviceGetCount_v2(ctypes.byref(count))
        driver.nvmlShutdown()
    return count.value


def cpu_threads(wanted: int | None) -> int:
    """Threads of a forward pass: what was asked for, else OMP_NUM_THREADS, else the cores that this process may use.

    An OMP_NUM_THREADS of 1 does not count: Dask's nannies set it for their workers whether anybody wants it or not.
    """
    given = re.match(r"[0-9]+", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is for nested regions
    return wanted or (int(given[0]) if given and int(given[0]) > 1 else len(os.sched_getaffinity(0)))
