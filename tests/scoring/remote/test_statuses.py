"""What is made of a status, and of the time that a server asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import DebugInfo, RetryInfo
from google.rpc.status_pb2 import Status

from corpuscore.scoring.remote.statuses import Meaning, Trouble


@dataclass
class Ended:
    """A call that has ended with an error."""

    status: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED
    words: str = "full"
    trailing: tuple[tuple[str, Any], ...] = ()

    def code(self) -> grpc.StatusCode:
        """Of gRPC."""
        return self.status

    def details(self) -> str:
        """The server's words."""
        return self.words

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        """Where hints are."""
        return self.trailing


def _details(*messages: Any) -> bytes:
    status = Status(code=8)
    for message in messages:
        packed = AnyMessage()
        packed.Pack(message)
        status.details.append(packed)
    return bytes(status.SerializeToString())


_RETRY = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))


@pytest.mark.parametrize(
    ("trailing", "hint"),
    [
        ((), None),
        ((("grpc-retry-pushback-ms", "250"),), 0.25),
        ((("grpc-retry-pushback-ms", "9999999"),), 60.0),
        ((("grpc-retry-pushback-ms", "-1"),), None),
        ((("grpc-retry-pushback-ms", "\u0663"),), None),
        ((("grpc-status-details-bin", _details(_RETRY)),), 2.5),
        ((("grpc-status-details-bin", _details(DebugInfo(detail="full"), _RETRY)),), 2.5),
        ((("grpc-status-details-bin", _details(RetryInfo(retry_delay=Duration(seconds=-5)))),), 0.0),
        ((("grpc-status-details-bin", _details(RetryInfo(retry_delay=Duration(seconds=10**9)))),), 60.0),
        ((("grpc-status-details-bin", b"\xff\xff no message"),), None),
        ((("grpc-status-details-bin", _details()),), None),
        ((("grpc-retry-pushback-ms", "100"), ("grpc-status-details-bin", _details(_RETRY))), 0.1),
    ],
)
def test_a_server_says_when_to_come_back_in_two_ways(trailing: tuple[tuple[str, Any], ...], hint: float | None) -> None:
    """Within a bound; what is none is passed over."""
    assert Trouble.of(Ended(trailing=trailing), None).hint == hint


@pytest.mark.parametrize(
    ("status", "words", "meaning"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full", Meaning.BUSY),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", Meaning.REFUSED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max", Meaning.REFUSED),
        (grpc.StatusCode.DATA_LOSS, "", Meaning.BROKEN),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Meaning.SLOW),
    ],
)
def test_a_status_has_a_meaning(status: grpc.StatusCode, words: str, meaning: Meaning) -> None:
    """A message that is too large is not a queue that is full: no later try changes it."""
    assert Trouble.of(Ended(status, words), None).meaning is meaning


def test_words_are_short_in_one_line_and_without_the_token() -> None:
    """Whatever a server says."""
    trouble = Trouble.of(Ended(words="no\nright for Zq7mark  " + "a" * 9999), "Zq7mark")
    assert str(trouble).startswith("RESOURCE_EXHAUSTED: no right for *** aaa")
    assert len(trouble.said) == 300
