"""The public client of Triton, from an environment of its own, against a real service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpuscore.scoring import load_scorer
from tests.servers import mlserver
from tests.service.processes import serving

TEXTS = ["What a morning!", "Nobody came, and the rain went on.", "", "größer, 更大, 🌧", "storm " * 700]


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, Any]]:
    """What the client got, by gRPC and by HTTP."""
    mlserver.require()
    program = Path(__file__).with_name("tritonclient_calls.py")
    with serving() as service:
        arguments = [str(service.port), str(service.http_port), service.name]
        done = subprocess.run(
            [mlserver.PYTHON, "-P", program, *arguments],
            input=json.dumps(TEXTS), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_what_tritonclient_gets(said: dict[str, dict[str, Any]], door: str) -> None:
    """Health, metadata, and the scores of the batch path, bit for bit."""
    scorer = load_scorer("bundled", device="cpu")
    (expected,) = scorer.stream([TEXTS])
    got = said[door]
    assert got["ready"] == [True, True, True]
    assert (got["server"], got["metadata"]["name"]) == ("corpuscore", "bundled")
    assert got["metadata"]["versions"] == [scorer.info.fingerprint]
    assert [tensor["name"] for tensor in got["metadata"]["outputs"]] == ["probabilities", "tokens", "truncated"]
    for name in ("probabilities", "chosen"):
        np.testing.assert_array_equal(np.array(got[name], np.float32), expected.probabilities_DL)
    np.testing.assert_array_equal(got["tokens"], expected.tokens_D)
    np.testing.assert_array_equal(got["truncated"], expected.truncated_D)
    assert "'another'" in got["refusal"]
    assert "This service has 'bundled' alone" in got["refusal"]
