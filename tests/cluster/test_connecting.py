from __future__ import annotations

import asyncio
import gc
import ssl
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from corpuscore.cluster import check, connected
from corpuscore.cluster.tls import mismatch
from corpuscore.errors import ClusterError, SchedulerLost
from tests.servers.dask import ask, running_scheduler
from tests.servers.tls import Authority, make_authority


@pytest.fixture(autouse=True)
def last_tries() -> Iterator[None]:
    """Dask's last try to connect has no time left: it is cancelled, and tornado leaves its socket to the collector."""
    yield
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
        gc.collect()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority for one test."""
    return make_authority(tmp_path / "tls")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is enough to connect in on this machine, or not to."""
    monkeypatch.setattr("corpuscore.cluster.connecting.CONNECT_SECONDS", 2)


def _connect(address: str, security: Security | None = None) -> int:
    async def look() -> int:
        async with connected(address, security) as client:
            return await check(client)

    return asyncio.run(look())


def test_a_tls_cluster_is_reached_by_its_address(authority: Authority) -> None:
    """tls:// takes certificates from Dask's own configuration, and tasks run there."""
    with (
        dask.config.set(authority.settings),
        LocalCluster(
            n_workers=1,
            processes=False,
            protocol="tls://",
            security=authority.security,
            dashboard_address=":0",
            host="127.0.0.1",
        ) as there,
    ):
        assert there.scheduler_address.startswith("tls://")
        assert ask(there.scheduler_address, sum, [1, 2]) == 3


@pytest.mark.usefixtures("short")
def test_a_scheduler_that_speaks_tls_is_not_one_that_is_away(authority: Authority) -> None:
    """tcp:// to a tls:// scheduler: the message says which side speaks what."""
    with running_scheduler(authority) as there, pytest.raises(ClusterError, match="speaks TLS.*says tcp://"):
        _connect(there.address.replace("tls://", "tcp://"))


@pytest.mark.usefixtures("short")
def test_a_scheduler_that_speaks_no_tls_is_not_one_that_is_away(authority: Authority) -> None:
    """tls:// to a tcp:// scheduler: the message says which side speaks what."""
    with (
        running_scheduler() as there,
        dask.config.set(authority.settings),
        pytest.raises(ClusterError, match="speaks no TLS.*says tls://"),
    ):
        _connect(there.address.replace("tcp://", "tls://"))


@pytest.mark.usefixtures("short")
def test_a_scheduler_of_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """The message speaks of its certificate, and of the CA."""
    with (
        running_scheduler(make_authority(tmp_path / "other")) as there,
        dask.config.set(authority.settings),
        pytest.raises(ClusterError, match="certificate is not one that this client trusts.*same CA"),
    ):
        _connect(there.address)


def test_a_client_without_a_certificate_is_refused(authority: Authority) -> None:
    """TLS goes both ways: a scheduler lets in nobody who has nothing to show; Dask's own clients do not even try."""
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    trusting.check_hostname = False
    with running_scheduler(authority) as there:
        assert "refuses this client's certificate" in mismatch(there.address, trusting)
        with pytest.raises(ClusterError, match="no client cert"):
            _connect(there.address, Security(tls_ca_file=str(authority.ca), require_encryption=True))


def test_a_client_that_fits_is_told_of_no_mismatch(authority: Authority) -> None:
    """The look at TLS finds nothing where both sides trust each other."""
    context = authority.security.get_connection_args("client")["ssl_context"]
    with running_scheduler(authority) as there:
        assert mismatch(there.address, context) == ""


@pytest.mark.usefixtures("short")
def test_a_client_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """A certificate that the scheduler's CA did not sign opens nothing."""
    other = make_authority(tmp_path / "other")
    stranger = Security(
        tls_ca_file=str(authority.ca),
        tls_client_cert=str(other.pem),
        tls_client_key=str(other.pem),
        require_encryption=True,
    )
    with running_scheduler(authority) as there, pytest.raises(ClusterError, match="refuses this client's certificate"):
        _connect(there.address, stranger)


def test_tls_without_certificates_is_a_clear_error() -> None:
    """The message names Dask's TLS configuration."""
    with pytest.raises(ClusterError, match=r"distributed\.comm\.tls"):
        _connect("tls://127.0.0.1:1")


def test_a_tls_file_that_is_not_there_is_a_clear_error(authority: Authority, tmp_path: Path) -> None:
    """A wrong path in the configuration is not a scheduler that does not answer."""
    with (
        dask.config.set({**authority.settings, "distributed.comm.tls.ca-file": str(tmp_path / "none.pem")}),
        pytest.raises(ClusterError, match="cannot be used.*No such file"),
    ):
        _connect("tls://127.0.0.1:1")


def test_encryption_that_is_required_is_not_left_out() -> None:
    """tcp:// where Dask's configuration asks for encryption."""
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(ClusterError, match="require-encryption"),
    ):
        _connect("tcp://127.0.0.1:1")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:x", "tcp://127.0.0.1", "http://127.0.0.1:1", "here", "tcp://"])
def test_an_address_that_is_none_is_refused_and_leaves_no_client(address: str) -> None:
    """What fails there never has a client to close: one that fails in its constructor hangs when it is collected."""
    before = set(Client._instances)
    with pytest.raises(ClusterError, match=r"tcp://host:port"):
        _connect(address)
    gc.collect()
    assert set(Client._instances) <= before  # those of other tests may be collected now


@pytest.mark.usefixtures("short")
def test_a_scheduler_that_does_not_answer_is_transient() -> None:
    """Its address stands in the error."""
    with pytest.raises(SchedulerLost, match="tcp://127.0.0.1:1 does not answer"):
        _connect("tcp://127.0.0.1:1")


@pytest.mark.usefixtures("short")
def test_a_scheduler_that_is_stopped_is_given_up() -> None:
    """It takes the connection, and never says a word: the limit is that of one that is away."""
    with running_scheduler() as there:
        there.stop()
        with pytest.raises(SchedulerLost, match="does not answer"):
            _connect(there.address)


@pytest.mark.usefixtures("short")
def test_a_client_of_a_stopped_scheduler_closes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes its goodbye: its connections are cut, and it is closed all the same."""
    monkeypatch.setattr("corpuscore.cluster.connecting.CLOSE_SECONDS", 0.5)

    async def leave() -> str:
        with running_scheduler() as there:
            async with connected(there.address) as client:
                there.stop()
            return str(client.status)

    assert asyncio.run(asyncio.wait_for(leave(), 60)) == "closed"


@pytest.mark.usefixtures("short")
def test_who_is_cancelled_while_connecting_leaves_no_client() -> None:
    """A trigger may end at any moment; a client that is half open is closed then."""

    async def give_up() -> list[str]:
        before = set(Client._instances)
        with running_scheduler() as there:
            there.stop()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_entered(there.address), 0.5)
        return [client.status for client in Client._instances if client not in before]

    async def _entered(address: str) -> None:
        async with connected(address):
            raise AssertionError("nobody answers there")

    assert set(asyncio.run(give_up())) <= {"closed"}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_login_is_refused_and_its_password_not_shown(scheme: str) -> None:
    """Dask knows none, and would repeat the address in its own error."""
    address = f"{scheme}://me:secret@127.0.0.1:1"
    with pytest.raises(ClusterError, match="login") as caught:
        _connect(address)
    assert f"{scheme}://me@127.0.0.1:1" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
