"""Addresses of models behind services: `grpc://host:port/NAME`, with TLS `grpcs://`, and options in the query.

| option | what |
|---|---|
| labels=a,b | names of the columns, where the service names none |
| activation=softmax or sigmoid | where the service does not say |
| input=text, output=probabilities | names of the tensors, where they cannot be told |
| version=3 | of the model, where the service has several |

The token is never part of an address: it is read from the environment, see channel.py.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

from corpuscore.addresses import shown
from corpuscore.errors import JobError
from corpuscore.records import Activation

#: The environment variable that holds the token of a service.
TOKEN_VARIABLE = "CORPUSCORE_SERVICE_TOKEN"  # noqa: S105  # its name
_FORM = "grpc://HOST:PORT/NAME, or grpcs:// with TLS"
_OPTIONS = ("labels", "activation", "input", "output", "version")


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A model at a service.

    Attributes:
        url: As the user gave it.
        secure: Whether it speaks TLS.
        host: Name, or an address without brackets.
        port: Of gRPC.
        name: Of the model at the service.
        labels, activation, input_name, output_name, version: See the options; empty where nothing is said.
    """

    url: str
    secure: bool
    host: str
    port: int
    name: str
    labels: tuple[str, ...] = ()
    activation: Activation | None = None
    input_name: str = ""
    output_name: str = ""
    version: str = ""

    @property
    def target(self) -> str:
        """The address as gRPC takes it: names are looked up in DNS, and all that they stand for are used."""
        try:
            number = ipaddress.ip_address(self.host)
        except ValueError:
            return f"dns:///{self.host}:{self.port}"
        return f"ipv6:[{number}]:{self.port}" if number.version == 6 else f"ipv4:{number}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def is_service(model: str) -> bool:
    """Whether a model is named by the address of a service."""
    return re.match(r"grpcs?://", model, re.IGNORECASE) is not None


def service_address(url: str) -> ServiceAddress:
    """What an address says.

    Raises:
        JobError: It is no such address, or holds a secret, which is not shown.
    """
    if shown(url) != url:
        raise JobError(
            "The address of a service holds a login, a password or a token (not shown)",
            rule=f"An address has no secrets: {_FORM}",
            next_step=f"put the token in {TOKEN_VARIABLE}, in the environment of all who score",
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _no_address(url) from None
    name = unquote(parts.path.removeprefix("/"))
    if not host or not port or not name or parts.fragment or not name.isprintable():
        raise _no_address(url)
    options = _options(url, parts.query)
    return ServiceAddress(
        url,
        parts.scheme == "grpcs",
        unquote(host),
        port,
        name,
        labels=_labels(url, options.get("labels")),
        activation=_activation(url, options.get("activation")),
        input_name=unquote(options.get("input", "")),
        output_name=unquote(options.get("output", "")),
        version=unquote(options.get("version", "")),
    )


def _no_address(url: str) -> JobError:
    return JobError(
        f"The model {url!r}",
        rule=f"The address of a model behind a service is {_FORM}",
        next_step="give host, port and the name of the model, which the service's metadata has",
    )


def _options(url: str, query: str) -> dict[str, str]:
    """The options as they stand in the address, percent-encoded."""
    found: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        key, _, value = item.partition("=")
        if key not in _OPTIONS or key in found or not value:
            raise JobError(
                f"The option {key[:40]!r} in the address {url!r}",
                rule=f"Options are {', '.join(_OPTIONS)}, each once and with a value",
                next_step="correct it, or leave it out",
            )
        found[key] = value
    return found


def _labels(url: str, said: str | None) -> tuple[str, ...]:
    labels = tuple(unquote(label) for label in said.split(",")) if said else ()
    if len(set(labels)) < len(labels) or not all(labels):
        raise JobError(
            f"The labels in the address {url!r}",
            rule="Each column has a name of its own",
            next_step="name them as in labels=joy,fear, in the order of the columns",
        )
    return labels


def _activation(url: str, said: str | None) -> Activation | None:
    if said not in (None, "softmax", "sigmoid"):
        raise JobError(
            f"activation={said!r} in the address {url!r}",
            rule="It is softmax, where the scores of a text sum to 1, or sigmoid",
        )
    return cast("Activation | None", said)
