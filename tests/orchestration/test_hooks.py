from __future__ import annotations

import asyncio
import json

import pytest

from corpuscore.errors import JobError
from corpuscore.orchestration.access import ClusterAccess
from corpuscore.orchestration.hooks import DaskHook, WarehouseHook, acluster_access, cluster_access, warehouse_url


def _connection(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: object) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def test_addresses_and_urls_pass_as_they_are() -> None:
    """Only `conn://` is looked up."""
    assert cluster_access("tcp://scheduler:8786") == ClusterAccess("tcp://scheduler:8786")
    assert cluster_access("local").address == "local"
    assert warehouse_url("duckdb:////data/scores.duckdb") == "duckdb:////data/scores.duckdb"


def test_a_cluster_comes_from_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, port, TLS files and the dashboard; encryption is then required."""
    extra = {
        "ca_file": "/tls/ca.pem",
        "cert_file": "/tls/cert.pem",
        "key_file": "/tls/key.pem",
        "dashboard": "https://d/",
    }
    _connection(monkeypatch, "gpus", conn_type="dask", host="scheduler", port=9000, extra=extra)
    access = DaskHook("gpus").get_conn()
    assert (access.address, access.dashboard) == ("tls://scheduler:9000", "https://d/")
    assert access.security is not None
    assert access.security.require_encryption
    assert access.dask_config["distributed.comm.tls.ca-file"] == "/tls/ca.pem"


def test_a_plain_cluster_has_the_usual_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS files nothing is said of encryption, and Dask's configuration holds."""
    _connection(monkeypatch, "cpus", conn_type="dask", host="scheduler")
    access = cluster_access("conn://cpus")
    assert (access, access.security, access.dask_config) == (ClusterAccess("tcp://scheduler:8786"), None, {})
    assert asyncio.run(acluster_access("conn://cpus")) == access


@pytest.mark.parametrize("kind", ["corpuscore_warehouse", "postgres"])
def test_a_warehouse_comes_from_its_connection(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Login and password are quoted, so that any character may be in them."""
    fields = {"host": "db", "login": "sc@res", "password": "p/w:1#", "schema": "analytics"}
    _connection(monkeypatch, "dwh", conn_type=kind, **fields)
    assert WarehouseHook("dwh").get_conn() == "postgresql://sc%40res:p%2Fw%3A1%23@db:5432/analytics"


def test_a_warehouse_may_be_behind_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is a path is the folder of a server's socket."""
    _connection(monkeypatch, "near", conn_type="postgres", host="/run/pg", login="scores", schema="analytics")
    assert warehouse_url("conn://near") == "postgresql://scores@/analytics?host=%2Frun%2Fpg&port=5432"


def test_a_duckdb_file_comes_from_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is the path of the file."""
    fields = {"conn_type": "corpuscore_warehouse", "schema": "/data/scores.duckdb", "extra": {"driver": "duckdb"}}
    _connection(monkeypatch, "file", **fields)
    assert warehouse_url("conn://file") == "duckdb:////data/scores.duckdb"


def test_a_missing_connection_is_named() -> None:
    """What to do is said; no traceback of Airflow's is needed to understand it."""
    with pytest.raises(JobError, match="no Airflow connection 'nowhere'.*Admin > Connections"):
        warehouse_url("conn://nowhere")
    with pytest.raises(JobError, match="'nowhere'"):
        asyncio.run(acluster_access("conn://nowhere"))


def test_a_connection_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 connection is no warehouse."""
    _connection(monkeypatch, "bucket", conn_type="aws")
    with pytest.raises(JobError, match="type 'aws'.*corpuscore_warehouse or postgres"):
        warehouse_url("conn://bucket")


def test_the_test_button_looks_at_the_cluster(dask_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is there says so; one that isn't gives its error, not a traceback."""
    host, _, port = dask_address.removeprefix("tcp://").partition(":")
    _connection(monkeypatch, "here", conn_type="dask", host=host, port=int(port))
    assert DaskHook("here").test_connection()[0]
