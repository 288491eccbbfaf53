from __future__ import annotations

import asyncio
import datetime
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster
from distributed.security import Security

from corpuscore import cluster
from corpuscore.cluster import _differences, connect, local_cluster
from corpuscore.errors import ClusterError, ClusterUnavailable
from corpuscore.scoring import devices
from corpuscore.scoring.devices import visible_gpus


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Security]:
    """Dask's own TLS settings over a fresh self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = tmp_path / "dask.pem"
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    settings = {"distributed.comm.tls.ca-file": str(pem)}
    for role in ("scheduler", "worker", "client"):
        settings |= {f"distributed.comm.tls.{role}.{part}": str(pem) for part in ("key", "cert")}
    with dask.config.set(settings):
        yield Security(require_encryption=True)


def test_a_tls_cluster_is_reached_by_its_address(tls: Security) -> None:
    """tls:// takes certificates from Dask's own configuration, and scoring tasks run there."""
    with (
        LocalCluster(
            n_workers=1, processes=False, protocol="tls://", security=tls, dashboard_address=":0", host="127.0.0.1"
        ) as there,
        connect(there.scheduler_address) as client,
    ):
        assert there.scheduler_address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3


def test_tls_without_certificates_is_a_clear_error() -> None:
    """The message names Dask's TLS configuration."""
    with pytest.raises(ClusterError, match="tls"), connect("tls://127.0.0.1:1"):
        pass


def test_a_scheduler_that_does_not_answer_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address stands in the error."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterUnavailable, match="tcp://127.0.0.1:1"), connect("tcp://127.0.0.1:1"):
        pass


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_login_is_refused_and_its_password_not_shown(scheme: str) -> None:
    """Dask knows none, and would repeat the address in its own error."""
    address = f"{scheme}://me:secret@127.0.0.1:1"
    with pytest.raises(ClusterError, match="login") as caught, connect(address):
        pass
    assert f"{scheme}://me@127.0.0.1:1" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_cluster_without_workers_is_given_up_in_the_end(empty_cluster: LocalCluster) -> None:
    """The error says how long it waited, and what waits longer."""
    with (
        dask.config.set({"corpuscore.wait-for-workers": "1s"}),
        pytest.raises(ClusterUnavailable, match="no worker for 1 s.*WAIT_FOR_WORKERS"),
        connect(empty_cluster.scheduler_address),
    ):
        pass


def test_a_cluster_that_starts_workers_for_work_is_given_some(empty_cluster: LocalCluster) -> None:
    """An adaptive cluster has no worker until it is asked for something."""
    empty_cluster.adapt(minimum=0, maximum=1, interval="100ms")
    with connect(empty_cluster.scheduler_address) as client:
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("said", ["soon", "3 fortnights", None])
def test_a_time_to_wait_that_is_none_is_named(said: object, empty_cluster: LocalCluster) -> None:
    """Value, rule and where to correct it."""
    with (
        dask.config.set({"corpuscore.wait-for-workers": said}),
        pytest.raises(ClusterError, match=r"wait-for-workers is .*90s or 15m.*DASK_CORPUSCORE"),
        connect(empty_cluster.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("what", "theirs"), [("dask", "2020.1.0"), ("distributed", None), ("corpuscore", "0.0.1"), ("python", "3.9.1")]
)
def test_other_versions_on_a_worker_are_named(what: str, theirs: str | None) -> None:
    """Worker, package and both versions stand in the message."""
    here = {"python": "3.11.7.final.0", "dask": "2026.7.1", "distributed": "2026.7.1", "corpuscore": "0.1.0"}
    (found,) = _differences({"packages": here}, {"tcp://w:1": {"packages": {**here, what: theirs}}})
    assert "tcp://w:1" in found
    assert "not installed" in found if theirs is None else theirs.rsplit(".", 1)[0] in found


def test_workers_show_how_many_rows_they_scored(dask_address: str) -> None:
    """Each worker has a rows_scored number in the scheduler's metrics, from its first heartbeat on."""
    with connect(dask_address) as client:
        client.wait_for_workers(2)
        metrics = client.sync(_metrics_with_rows, client)
    assert all(isinstance(count, int) for count in metrics)


async def _metrics_with_rows(client: Client) -> list[object]:
    assert client.scheduler is not None
    while True:
        workers = (await client.scheduler.identity(n_workers=-1))["workers"].values()
        found = [worker["metrics"].get("rows_scored") for worker in workers]
        if None not in found:
            return found
        await asyncio.sleep(0.05)


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
