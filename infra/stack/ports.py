"""Ports that nobody listens on: the usual one where it is free, else the next."""

from __future__ import annotations

import socket

_TRIES = 200


def free_port(usual: int, taken: set[int] | None = None) -> int:
    """The first port from the usual one on that can be bound, on all interfaces.

    Args:
        usual: Where people expect it.
        taken: Ports that were given away a moment ago; the answer is added.

    Raises:
        OSError: None of 200 is free.
    """
    given = taken if taken is not None else set()
    for port in range(usual, usual + _TRIES):
        if port not in given and _bindable(port):
            given.add(port)
            return port
    raise OSError(f"no free port between {usual} and {usual + _TRIES - 1}")


def _bindable(port: int) -> bool:
    """Whether it can be bound on loopback and on every address; a listener on either would get in the way."""
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104  # nothing listens here, the port is only tried
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of an earlier stack is no listener
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
