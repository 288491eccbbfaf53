"""Why a scheduler that is there cannot be talked to: a look at which side speaks TLS, and who distrusts whom.

Dask says no more than that its stream was closed. So a connection is opened by hand: a scheduler speaks first, in the
clear or after the handshake of TLS, and what comes then tells.
"""

from __future__ import annotations

import socket
import ssl

from distributed.comm.addressing import parse_address, parse_host_port

_PROBE_SECONDS = 5.0


def mismatch(address: str, context: ssl.SSLContext | None) -> str:
    """What is wrong with TLS between here and an address; empty where it is something else. Blocks for some seconds.

    Args:
        address: `tcp://host:port` or `tls://host:port`.
        context: With which a client of this address connects by TLS.
    """
    scheme, location = parse_address(address)
    try:
        with socket.create_connection(parse_host_port(location), timeout=_PROBE_SECONDS) as connection:
            if scheme == "tls" and context is not None:
                return _with_tls(connection, context)
            return _without(connection)
    except OSError:  # then it is not TLS that fails
        return ""


def _with_tls(connection: socket.socket, context: ssl.SSLContext) -> str:
    try:
        with context.wrap_socket(connection) as secured:
            secured.recv(1)  # with TLS 1.3 a client hears only here that its certificate is refused
        return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not one that this client trusts ({error.verify_message})"
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE"):
            return "it speaks no TLS, and the address says tls://"
        if error.reason and "ALERT" in error.reason:
            return f"it refuses this client's certificate ({error.reason.lower().replace('_', ' ')})"
        return f"TLS fails ({error.reason})"


def _without(connection: socket.socket) -> str:
    """Whether the other side answers a greeting of TLS: a scheduler without it says something else, and at once."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            return "it speaks TLS, and the address says tcp://"
    except ssl.SSLError as error:
        alert = error.reason is not None and "ALERT" in error.reason
        return "it speaks TLS, and the address says tcp://" if alert else ""
