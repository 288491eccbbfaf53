"""Airflow connections: a Dask cluster with its TLS files, and a warehouse with its password.

A param holds `conn://ID`; the task, or the trigger, asks for the connection when it needs it, so that neither address
files nor passwords are written into a DAG run.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from corpuscore.errors import CorpuscoreError, JobError
from corpuscore.orchestration.access import ClusterAccess
from corpuscore.orchestration.clients import look_at

SCHEME = "conn://"


class DaskHook(BaseHook):
    """Connection type `dask`: the scheduler's host and port, TLS files, and the dashboard as browsers reach it."""

    conn_name_attr = "dask_conn_id"
    default_conn_name = "dask_default"
    conn_type = "dask"
    hook_name = "Dask cluster"

    def __init__(self, dask_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.dask_conn_id = dask_conn_id

    def get_conn(self) -> ClusterAccess:
        """How to reach the cluster."""
        return cluster_access(SCHEME + self.dask_conn_id)

    def test_connection(self) -> tuple[bool, str]:
        """What the Test button of the connection form asks."""
        try:
            seen = asyncio.run(look_at(self.get_conn()))
        except CorpuscoreError as error:
            return False, str(error)
        return True, f"The cluster answers; workers: {seen.workers}; its dashboard is {seen.dashboard}"


class WarehouseHook(BaseHook):
    """Connection type `corpuscore_warehouse`; connections of type `postgres` are understood as well."""

    conn_name_attr = "warehouse_conn_id"
    default_conn_name = "warehouse_default"
    conn_type = "corpuscore_warehouse"
    hook_name = "corpuscore warehouse"

    def __init__(self, warehouse_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.warehouse_conn_id = warehouse_conn_id

    def get_conn(self) -> str:
        """The warehouse's URL, with its password: for a task's own use, never for a log or an XCom."""
        return warehouse_url(SCHEME + self.warehouse_conn_id)


def cluster_access(cluster: str) -> ClusterAccess:
    """The cluster that a param names.

    Raises:
        JobError: There is no such connection, or it is of another type.
    """
    if not cluster.startswith(SCHEME):
        return ClusterAccess(cluster)
    return _cluster_of(_connection(cluster.removeprefix(SCHEME)))


async def acluster_access(cluster: str) -> ClusterAccess:
    """The same on an event loop, which a triggerer must not block."""
    if not cluster.startswith(SCHEME):
        return ClusterAccess(cluster)
    conn_id = cluster.removeprefix(SCHEME)
    try:
        return _cluster_of(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException as error:
        raise _missing(conn_id) from error


def warehouse_url(warehouse: str) -> str:
    """The warehouse that a param names, with the password of its connection.

    Raises:
        JobError: There is no such connection, or it is of another type.
    """
    if not warehouse.startswith(SCHEME):
        return warehouse
    return _url_of(_connection(warehouse.removeprefix(SCHEME)))


def _connection(conn_id: str) -> Connection:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise _missing(conn_id) from error


def _missing(conn_id: str) -> JobError:
    return JobError(
        f"There is no Airflow connection {conn_id!r}",
        next_step="add it under Admin > Connections, or name another one",
    )


def _cluster_of(connection: Connection) -> ClusterAccess:
    _expect(connection, DaskHook.conn_type)
    extra: dict[str, Any] = connection.extra_dejson
    ca_file = extra.get("ca_file") or ""
    scheme = "tls" if ca_file or extra.get("tls") else "tcp"
    return ClusterAccess(
        address=f"{scheme}://{connection.host}:{connection.port or 8786}",
        dashboard=extra.get("dashboard") or "",
        ca_file=ca_file,
        cert_file=extra.get("cert_file") or "",
        key_file=extra.get("key_file") or "",
    )


def _url_of(connection: Connection) -> str:
    _expect(connection, WarehouseHook.conn_type, "postgres")
    if connection.extra_dejson.get("driver") == "duckdb":
        return f"duckdb:///{connection.schema}"
    login = quote(connection.login or "", safe="")
    if connection.password:
        password = quote(connection.password, safe="")
        mask_secret(password)  # Airflow masks it as it is; the URL holds it quoted
        login += f":{password}"
    user = f"{login}@" if login else ""
    database, host, port = connection.schema or "", str(connection.host), connection.port or 5432
    if host.startswith("/"):  # the folder of a socket
        return f"postgresql://{user}/{database}?host={quote(host, safe='')}&port={port}"
    return f"postgresql://{user}{host}:{port}/{database}"


def _expect(connection: Connection, *types: str) -> None:
    if connection.conn_type not in types:
        raise JobError(
            f"The Airflow connection {connection.conn_id!r} is of type {connection.conn_type!r}",
            rule=f"It has to be of type {' or '.join(types)}",
            next_step="name another connection, or change its type",
        )
