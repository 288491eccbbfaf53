"""Where a service listens and who may come in: addresses, certificates, the token; all before a model is loaded."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from corpuscore.errors import JobError

#: The environment variable that holds the token, where no file does.
TOKEN_VARIABLE = "CORPUSCORE_SERVICE_TOKEN"  # noqa: S105  # its name
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates of a service, in PEM files.

    Args:
        cert: The service's own, with those between it and the authority.
        key: Of the certificate.
        client_ca: Authority whose certificates clients must show; None: they need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            JobError: A file cannot be read, or is not what it must be.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:  # SSLError is an OSError
            ca = f", {self.client_ca}" if self.client_ca else ""
            raise JobError(
                f"Certificates {self.cert}, {self.key}{ca} cannot be used: {error}",
                rule="They are PEM files: a certificate, its own key without a password, an authority",
                next_step="correct --tls-cert, --tls-key or --tls-client-ca",
            ) from None
        return context

    def credentials(self) -> Any:
        """For gRPC; the files are those that `context` has found good."""
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def tls_from(cert: str | None, key: str | None, client_ca: str | None) -> Tls | None:
    """The certificates that the options name; None where there are none.

    Raises:
        JobError: One of them without the others that it needs.
    """
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise JobError(
            f"--tls-{'key' if key else 'cert' if cert else 'client-ca'} by itself",
            rule="A service that speaks TLS has a certificate and its key",
            next_step="give --tls-cert and --tls-key",
        )
    return Tls(Path(cert), Path(key), None if client_ca is None else Path(client_ca))


def token_from(file: str | None, environment: Mapping[str, str]) -> str | None:
    """The token of a file, or of the environment; None where there is none.

    Raises:
        JobError: The file cannot be read, or what is there is no token.
    """
    try:
        said = environment.get(TOKEN_VARIABLE) if file is None else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--token-file {file} cannot be read: {error}", next_step="correct it") from None
    if said is None:
        return None
    token = said.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise JobError(
            f"The token of {TOKEN_VARIABLE if file is None else file} is empty, or has other letters than it may",
            rule="A token is ASCII without spaces",
            next_step="make one, such as with openssl rand -hex 32",
        )
    return token


def check_open(host: str, token: str | None, *, no_token: bool) -> None:
    """See that nobody opens a service to a network by accident.

    Raises:
        JobError: The host is not this machine's own, and there is no token; or there is one, and none is wanted.
    """
    if token is not None and no_token:
        raise JobError(
            "--no-token with a token", rule="A service has one, or has none", next_step="leave one of them out"
        )
    if token is None and not no_token and not is_loopback(host):
        raise JobError(
            f"--host {host} without a token",
            rule="Whoever reaches it over the network could use the service",
            next_step=f"give --token-file or {TOKEN_VARIABLE}, or say --no-token where something else guards it",
        )


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        JobError: It cannot: the port is taken, the host is not here.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise JobError(
            f"{host}:{port} cannot be listened at: {why}",
            rule="A service has an address of this machine, and a port that no other process has",
            next_step="end the other one, or give another --port, --http-port or --host; port 0 takes a free one",
        ) from None


def bind(server: Any, host: str, port: int, tls: Tls | None) -> int:
    """Let a gRPC server listen there; returns the port.

    Raises:
        JobError: It cannot.
    """
    listening(host, port).close()  # says why not, where gRPC does not
    literal = f"[{host.strip('[]')}]" if ":" in host else host
    try:
        if tls is None:
            return int(server.add_insecure_port(f"{literal}:{port}"))
        return int(server.add_secure_port(f"{literal}:{port}", tls.credentials()))
    except RuntimeError as error:
        raise JobError(f"gRPC cannot listen at {host}:{port}: {error}", next_step="give another --port") from None
