"""Certificates for a Dask cluster that speaks TLS: an authority, and what it signs for each side."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

_ROLES = ("scheduler", "worker", "client")


@dataclass(frozen=True)
class Authority:
    """A CA in a folder of its own, and one key with its certificate for all sides of a cluster.

    Attributes:
        ca: PEM file of the authority's certificate.
        pem: PEM file with a key and the certificate that the authority signed for it.
    """

    ca: Path
    pem: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Dask's configuration for a side that trusts this authority and shows its certificate."""
        shown = {f"distributed.comm.tls.{role}.{part}": str(self.pem) for role in _ROLES for part in ("key", "cert")}
        return {"distributed.comm.tls.ca-file": str(self.ca), **shown}

    @property
    def security(self) -> Security:
        """The same for a server or client that is made by hand."""
        files = {f"tls_{role}_{part}": str(self.pem) for role in _ROLES for part in ("key", "cert")}
        return Security(tls_ca_file=str(self.ca), require_encryption=True, **files)


def make_authority(folder: Path) -> Authority:
    """A new authority, whose files lie in a folder that is made."""
    folder.mkdir(parents=True)
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("corpuscore test CA", key, "corpuscore test CA", key, authority=True)
    leaf = _certificate("dask", own, "corpuscore test CA", key, authority=False)
    made = Authority(folder / "ca.pem", folder / "dask.pem")
    made.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made.pem.write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
    return made


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
