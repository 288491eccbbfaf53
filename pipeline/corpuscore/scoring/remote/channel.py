"""The connection to a service: one an address and process, shared by all streams of it.

A name that stands for several addresses in DNS is balanced over them, request by request. What a connection needs to be
let in comes from the environment: CORPUSCORE_SERVICE_TOKEN, sent as `authorization: Bearer ...`; and for grpcs://
CORPUSCORE_SERVICE_CA (PEM file of the authority that signed the service's certificate; else the system's are trusted),
CORPUSCORE_SERVICE_CERT and CORPUSCORE_SERVICE_KEY (PEM files, where the service asks clients for a certificate).

Source: https://github.com/grpc/grpc/blob/master/doc/service_config.md
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import grpc

from corpuscore.errors import JobError
from corpuscore.inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerReadyRequest,
)
from corpuscore.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from corpuscore.scoring.remote.address import TOKEN_VARIABLE, ServiceAddress
from corpuscore.scoring.remote.breaker import Breaker
from corpuscore.scoring.remote.pace import Pace
from corpuscore.scoring.remote.statuses import Meaning, Trouble

log = logging.getLogger(__name__)

CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE = (f"CORPUSCORE_SERVICE_{what}" for what in ("CA", "CERT", "KEY"))
#: Of a call that needs no forward pass.
_ASK_SECONDS = 10.0
_OPTIONS: dict[str, Any] = {
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    "grpc.enable_retries": 0,  # whoever sends decides, see requests.py
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 200,  # gRPC's own go up to two minutes, in which a service is back unseen
    "grpc.min_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2000,
    "grpc.dns_min_time_between_resolutions_ms": 5000,
}


class Link:
    """A connection with all that its streams share; closed with its last user.

    Attributes:
        address: Whose.
        pace: How many requests are under way.
        breaker: Waits while the service is gone.
        token: Sent with each request; None: there is none.
    """

    def __init__(self, address: ServiceAddress) -> None:
        self.address = address
        self.token = _token()
        if self.token and not (address.secure or address.is_loopback):
            log.warning(
                "%s is sent to %s in the clear, where others on the way can read it: grpcs:// has TLS.",
                TOKEN_VARIABLE,
                address.host,
            )
        self.pace = Pace()
        self.breaker = Breaker(address.url, self.is_ready)
        self._channel = _channel(address)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._shown = (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def metadata(self) -> ModelMetadataResponse | Trouble:
        """What the service says of the model."""
        request = ModelMetadataRequest(name=self.address.name, version=self.address.version)
        try:
            response: ModelMetadataResponse = self._stub.ModelMetadata(
                request, timeout=_ASK_SECONDS, metadata=self._shown
            )
        except grpc.RpcError as error:
            return self.trouble(error)
        return response

    def is_ready(self) -> bool:
        """Whether the service answers, and takes requests."""
        try:
            return bool(self._stub.ServerReady(ServerReadyRequest(), timeout=_ASK_SECONDS, metadata=self._shown).ready)
        except grpc.RpcError as error:  # one that answers otherwise is there, and will say to requests what is wrong
            return self.trouble(error).meaning not in (Meaning.GONE, Meaning.SLOW)

    def infer(self, request: ModelInferRequest, seconds: float) -> Any:
        """Send a request; a future that can be cancelled, whose result raises grpc.RpcError."""
        return self._stub.ModelInfer.future(request, timeout=seconds, metadata=self._shown)

    def trouble(self, error: Any) -> Trouble:
        """What a call has ended with."""
        return Trouble.of(error, self.token)

    def close(self) -> None:
        """End all calls, and the connection."""
        self._channel.close()


_links: WeakValueDictionary[ServiceAddress, Link] = WeakValueDictionary()
_linking = threading.Lock()


def link_to(address: ServiceAddress) -> Link:
    """The process's connection to an address.

    Raises:
        JobError: A token or a certificate that cannot be used.
    """
    with _linking:
        link = _links.get(address)
        if link is None:
            link = _links[address] = Link(address)
        return link


def _channel(address: ServiceAddress) -> grpc.Channel:
    options = dict(_OPTIONS)
    if address.is_loopback:
        options["grpc.enable_http_proxy"] = 0
    if not address.secure:
        return grpc.insecure_channel(address.target, options=list(options.items()))
    cert, key = _file(CERT_VARIABLE), _file(KEY_VARIABLE)
    if (cert is None) != (key is None):
        raise JobError(
            f"Of {CERT_VARIABLE} and {KEY_VARIABLE}, one is set",
            rule="A client's certificate needs its key",
            next_step="set both to PEM files, or none",
        )
    credentials = grpc.ssl_channel_credentials(_authorities(), key, cert)
    return grpc.secure_channel(address.target, credentials, options=list(options.items()))


def _authorities() -> bytes | None:
    """Certificates of the authorities that are trusted; None: those that gRPC brings, where the system has no file."""
    given = _file(CA_VARIABLE)
    if given is not None:
        return given
    system = ssl.get_default_verify_paths().cafile
    return Path(system).read_bytes() if system else None


def _file(variable: str) -> bytes | None:
    path = os.environ.get(variable)
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise JobError(
            f"{variable} is {path!r}, which cannot be read ({error.strerror})",
            rule="It names a PEM file, on each machine that scores",
        ) from error


def _token() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not all(" " <= letter <= "~" for letter in token):
        raise JobError(
            f"{TOKEN_VARIABLE} (not shown) has letters that no header can hold",
            rule="A token is printable ASCII in one line",
        )
    return token or None
