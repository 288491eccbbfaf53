"""What each gRPC status means to a client: whether the same request may be sent again, when, and what to say if not.

Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md, gRFC A6 (grpc-retry-pushback-ms),
google/rpc/error_details.proto (RetryInfo)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from corpuscore.errors import ModelError
from corpuscore.scoring.remote.address import TOKEN_VARIABLE, ServiceAddress

#: Of a server's words that are kept.
_LETTERS = 300
#: No server's hint makes a request wait longer.
_LONGEST_HINT_SECONDS = 60.0
#: How gRPC's libraries say that a message is beyond a bound, which no later try changes.
_TOO_LARGE = re.compile(r"message (length )?(is )?(larger|exceeds)|max(imum)? message", re.IGNORECASE)


class Meaning(Enum):
    """What to do about a status."""

    GONE = "the service cannot be reached: wait for it"
    BUSY = "it has enough to do: send less, and this again"
    SLOW = "it was not answered in time: send this again, then less of it"
    REFUSED = "it is refused for what is in it: find the text"
    BROKEN = "something went wrong inside: send it again, then find the text"
    FINAL = "no request will be answered"


_MEANINGS = {
    grpc.StatusCode.UNAVAILABLE: Meaning.GONE,
    grpc.StatusCode.CANCELLED: Meaning.GONE,
    grpc.StatusCode.ABORTED: Meaning.GONE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Meaning.BUSY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Meaning.SLOW,
    grpc.StatusCode.INVALID_ARGUMENT: Meaning.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Meaning.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Meaning.FINAL,
    grpc.StatusCode.PERMISSION_DENIED: Meaning.FINAL,
    grpc.StatusCode.NOT_FOUND: Meaning.FINAL,
    grpc.StatusCode.UNIMPLEMENTED: Meaning.FINAL,
}
_NEXT_STEPS = {
    "UNAUTHENTICATED": f"put the service's token in {TOKEN_VARIABLE}, in the environment of all who score",
    "PERMISSION_DENIED": f"ask who runs the service for the right to use this model; {TOKEN_VARIABLE} holds the token",
    "NOT_FOUND": "ask the service for its models, and correct the name or the version in the address",
    "UNIMPLEMENTED": "give the port of a server that speaks the Open Inference Protocol v2 over gRPC",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """How a request ended, where not with an answer.

    Attributes:
        status: Name of the gRPC status.
        meaning: What to do about it.
        said: The server's words, in one line.
        hint: Seconds after which it says that the request may be sent again; None: it does not say.
    """

    status: str
    meaning: Meaning
    said: str
    hint: float | None = None

    @classmethod
    def of(cls, error: Any, token: str | None) -> Trouble:
        """From what gRPC raises.

        Args:
            error: A grpc.RpcError that is a call as well.
            token: Left out of the words.
        """
        code = error.code()
        said = " ".join(str(error.details() or "").split())
        said = (said.replace(token, "***") if token else said)[:_LETTERS]
        meaning = _MEANINGS.get(code, Meaning.BROKEN)
        hint = _hint(dict(error.trailing_metadata() or ()))
        if meaning is Meaning.BUSY and hint is None and _TOO_LARGE.search(said):
            meaning = Meaning.REFUSED
        return cls(code.name, meaning, said, hint)

    def __str__(self) -> str:
        return f"{self.status}: {self.said}" if self.said else self.status

    def final(self, address: ServiceAddress) -> ModelError:
        """The error where no request will be answered."""
        return ModelError(
            f"The service at {address.url} answers {self}",
            rule="It has the model, and answers this client",
            next_step=_NEXT_STEPS.get(self.status, "look into the service's log"),
        )


def _hint(trailing: dict[str, Any]) -> float | None:
    """Seconds until the next try, as a server may say them in two ways."""
    said = str(trailing.get("grpc-retry-pushback-ms", ""))
    if said.isascii() and said.isdigit():
        return min(int(said) / 1000, _LONGEST_HINT_SECONDS)
    try:
        status = Status.FromString(trailing.get("grpc-status-details-bin", b""))
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                return min(max(seconds, 0.0), _LONGEST_HINT_SECONDS)
    except (DecodeError, TypeError):
        return None
    return None
