"""MLServer, and the public tritonclient, in an environment of their own: their packages have other bounds than ours.

python -m tests.servers.mlserver makes `.local/mlserver` from mlserver.txt. torch and transformers are not installed
again: a .pth file at the end of its path leads to those of the Python that makes it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from infra.stack.home import CHECKOUT
from tests.servers.s3 import free_port

FOLDER = CHECKOUT / ".local" / "mlserver"
PYTHON = FOLDER / "bin" / "python"
PINS = Path(__file__).with_suffix(".txt")
#: What marks an environment that is whole: the hash of what it was made from.
_MADE = FOLDER / ".made"
_START_SECONDS = 180.0


def _wanted() -> str:
    made_from = PINS.read_bytes() + sysconfig.get_path("purelib").encode() + sys.version.encode()
    return hashlib.sha256(made_from).hexdigest()


def is_made() -> bool:
    """Whether the environment is there, and is the one that is wanted."""
    return _MADE.exists() and _MADE.read_text() == _wanted()


def make() -> None:
    """Make the environment, where it is not there yet; says what it does."""
    if is_made():
        print(f"{FOLDER} is made already.")
        return
    print(f"Making {FOLDER} from {PINS.name} (some minutes the first time).", flush=True)
    began = time.monotonic()
    venv.create(FOLDER, clear=True, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([*pip, "--no-deps", "--requirement", str(PINS)], check=True)
    own = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True
    )
    borrowed = Path(own.stdout.decode().strip()) / "corpuscore.pth"
    borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
    for apart in ("mlserver, transformers", "tritonclient.grpc, tritonclient.http"):  # each has the protocol's messages
        subprocess.run([PYTHON, "-c", f"import {apart}"], check=True)
    _MADE.write_text(_wanted())
    print(f"Made in {time.monotonic() - began:.0f} s.")


def require() -> None:
    """Skip the test where the environment is not there."""
    if not is_made():
        pytest.skip("MLServer's environment is not made; `make peers` makes it")


@contextmanager
def running_mlserver(model: Path, folder: Path) -> Iterator[int]:
    """MLServer on loopback with transformers' text-classification pipeline, twice; its gRPC port.

    As model `emotions` it names its labels in the metadata, as `mute` it does not.

    Args:
        model: A checkpoint's folder.
        folder: For the server's files.
    """
    grpc_port, http_port, metrics_port = (free_port() for _ in range(3))
    settings = {
        "host": "127.0.0.1", "grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port,
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_bytes(orjson.dumps(settings))
    for name in ("emotions", "mute"):
        own = {
            "name": name,
            "implementation": "tests.servers.mlserver_runtime.Pipeline",
            "parameters": {"uri": str(model), "version": "7", "extra": {"tells": name != "mute"}},
        }
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_bytes(orjson.dumps(own))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "log").open("wb") as log:
        command = [str(PYTHON), "-m", "mlserver.cli.main", "start", str(folder)]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{http_port}/v2/health/ready", folder / "log")
        yield grpc_port
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"MLServer did not become ready: {log.read_text()[-4000:]}")


if __name__ == "__main__":
    make()
