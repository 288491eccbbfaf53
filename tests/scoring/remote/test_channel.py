"""Connections: a name with several addresses, and what goes over them in the clear."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from corpuscore.scoring import load_scorer
from corpuscore.scoring.remote.address import ServiceAddress, service_address
from corpuscore.scoring.remote.channel import Link
from tests.servers.inference import Script, answering, expected
from tests.servers.names import naming

TEXTS = [f"{'ae' * (number % 17)} text {number}" for number in range(600)]


def test_requests_go_to_all_addresses_of_a_name_and_to_those_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts share the texts; one goes in the middle, and the other scores what it left: each text has its row."""
    one, other = Script(), Script()
    there = ServiceAddress.target.fget  # type: ignore[attr-defined]
    with naming(["127.0.0.1", "127.0.0.2"]) as resolver, answering(one) as url, ExitStack() as second:
        port = service_address(url).port
        second.enter_context(answering(other, port, host="127.0.0.2"))
        asked = f"dns://{resolver}/"
        monkeypatch.setattr(ServiceAddress, "target", property(lambda self: there(self).replace("dns:///", asked)))
        monkeypatch.setenv("no_grpc_proxy", "service.test")
        scorer = load_scorer(f"grpc://service.test:{port}/letters", token_budget=200)
        left_alone = threading.Event()

        def batches() -> Iterator[list[str]]:
            for number, text in enumerate(TEXTS):
                if number == 500:
                    left_alone.wait(30)
                yield [text]

        stream = scorer.stream(batches())
        rows = [next(stream).probabilities_DL]
        of_each = [len(script.requests) for script in (one, other)]
        assert min(of_each) > sum(of_each) / 4
        second.close()
        left_alone.set()
        rows += [scores.probabilities_DL for scores in stream]
    assert len(one.requests) > of_each[0]
    np.testing.assert_array_equal(np.concatenate(rows), expected(TEXTS))


@pytest.mark.parametrize(
    ("url", "warned"),
    [("grpc://service.test:1/m", True), ("grpcs://service.test:1/m", False), ("grpc://[::1]:1/m", False)],
)
def test_a_token_that_others_could_read_is_warned_of(
    url: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the variable and the way out, and not the token."""
    monkeypatch.setenv("CORPUSCORE_SERVICE_TOKEN", "Zq7mark")
    Link(service_address(url)).close()
    assert ["grpcs:// has TLS" in line for line in caplog.messages] == [True] * warned
    assert "Zq7mark" not in caplog.text
