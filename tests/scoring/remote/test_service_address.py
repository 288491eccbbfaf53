"""Addresses of services: what they say, what is refused, and that nothing secret is shown."""

from __future__ import annotations

import pytest

from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.scoring.remote.address import service_address

_SECRET = "Zq7mark"
_JOB = {"corpus": ["c"], "work": "w", "warehouse": "duckdb:///w.duckdb"}


def test_an_address_says_where_and_what() -> None:
    """Host, port and name, options percent-decoded; names go through DNS, numbers do not."""
    found = service_address("grpcs://gpu.example:8001/a%20b?labels=joy%2C%20or%20so,fear&activation=sigmoid&version=3")
    assert (found.secure, found.host, found.port, found.name, found.version) == (True, "gpu.example", 8001, "a b", "3")
    assert found.labels == ("joy, or so", "fear")
    assert found.activation == "sigmoid"
    assert found.target == "dns:///gpu.example:8001"
    assert service_address("grpc://[::1]:80/m").target == "ipv6:[::1]:80"
    assert service_address("grpc://127.0.0.1:80/m").target == "ipv4:127.0.0.1:80"


@pytest.mark.parametrize(
    "url",
    [
        "grpc://h:1/",
        "grpc://h/m",
        "grpc://:1/m",
        "grpc://h:port/m",
        "grpc://h:1/m#x",
        "grpc://h:1/m?colour=red",
        "grpc://h:1/m?labels=",
        "grpc://h:1/m?labels=a,a",
        "grpc://h:1/m?version=1&version=2",
        "grpc://h:1/m?activation=tanh",
    ],
)
def test_what_is_no_address_is_refused_with_the_form(url: str) -> None:
    """Each with a rule."""
    with pytest.raises(JobError) as refused:
        service_address(url)
    assert refused.value.rule


@pytest.mark.parametrize(
    "url",
    [
        f"grpc://{_SECRET}@h:1/m",
        f"grpc://me:{_SECRET}@h:1/m",
        f"grpcs://h:1/m?token={_SECRET}",
        f"grpc://h:1/m?auth={_SECRET}",
        f"grpc://h:1/m?labels=a,b&api_key={_SECRET}",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_shown(url: str) -> None:
    """By the address itself, and by a job."""
    for refuse in (lambda: service_address(url), lambda: Job.build({**_JOB, "model": url})):
        with pytest.raises(JobError) as refused:
            refuse()
        assert _SECRET not in str(refused.value)
        assert "not shown" in str(refused.value)
