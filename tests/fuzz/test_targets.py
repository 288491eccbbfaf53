"""Thousands of damaged inputs: an error of our own, or a result that keeps its promises, and never anything else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.stack.home import CHECKOUT
from tests.fuzz.targets import TARGETS

#: Where it happens, as a share of the input in thousandths; what happens; and a byte or a length.
CHANGES = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from(["flip", "cut", "repeat", "set", "splice"]), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def changed(seed: bytes, other: bytes, changes: list[tuple[int, str, int]]) -> bytes:
    """A valid input with bits flipped, pieces cut out, doubled or set to other bytes, and an end from another input."""
    body = bytearray(seed)
    for share, change, value in changes:
        at = len(body) * share // 1001
        if change == "flip" and body:
            body[at] ^= 1 << value % 8
        elif change == "cut":
            del body[at : at + value]
        elif change == "repeat":
            body[at:at] = body[at : at + value]
        elif change == "set":
            body[at : at + 1 + value % 8] = bytes([value]) * (1 + value % 8)
        else:
            body[at:] = other[len(other) * share // 1001 :]
    return bytes(body)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_inputs_are_errors_of_our_own(name: str, data: st.DataObject) -> None:
    """Bits flipped, truncated, spliced: what is made of a valid input is refused in our words, or keeps its word."""
    seeds = st.sampled_from(TARGETS[name].seeds())
    TARGETS[name].run(changed(data.draw(seeds), data.draw(seeds), data.draw(CHANGES)))


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_starts_from_is_accepted(name: str) -> None:
    """Seeds, the odd ones among them, keep the promises of their target."""
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_by_coverage_finds_nothing(name: str, tmp_path: Path) -> None:
    """2,000 runs of each harness, or ten seconds, in a process of its own, from its seeds: no crash, and no hang."""
    limits = ["--runs", "2000", "--seconds", "10", "--inputs", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, *limits], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Done [1-9]\d* runs", done.stderr), done.stderr[-3000:]
