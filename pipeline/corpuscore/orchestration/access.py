"""How to reach a cluster: what a connection says, and what a client of the cluster asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed.security import Security


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How to reach a cluster.

    Attributes:
        address: Of the scheduler, such as `tcp://scheduler:8786`.
        dashboard: Address that a browser reaches, empty where the scheduler's own is the one.
        ca_file, cert_file, key_file: PEM files on the machine that connects; all empty without TLS, or where Dask's
            own configuration names them.
    """

    address: str
    dashboard: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def security(self) -> Security | None:
        """For a client; None leaves it to Dask's configuration."""
        if not self.ca_file:
            return None
        return Security(
            tls_ca_file=self.ca_file,
            tls_client_cert=self.cert_file,
            tls_client_key=self.key_file,
            require_encryption=True,
        )

    @property
    def dask_config(self) -> dict[str, Any]:
        """The same for code that opens its clients by address alone."""
        if not self.ca_file:
            return {}
        return {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": self.ca_file,
            "distributed.comm.tls.client.cert": self.cert_file,
            "distributed.comm.tls.client.key": self.key_file,
        }
