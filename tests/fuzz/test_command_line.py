"""Arguments of any kind end with exit status 0, 1 or 2 and one clear message, and never with a traceback."""

from __future__ import annotations

import string
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corpuscore.cli import main

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
#: Words of no scheme, so that nothing is looked for on a network.
ODD = st.sampled_from(
    ["", "\0", "a\0b", "..", "/", "~", "%", "%zz", "[", "*" * 50, "a" * 5000, "\ud800", "{}", "''", "\n"]
)
WORDS = st.text(string.printable.replace(":", ""), max_size=12) | st.text(max_size=6).filter(
    lambda text: ":" not in text
)
NUMBERS = st.sampled_from(["-1", "0", "1", "1e3", "nan", "inf", "9" * 40, "0x1", "", "1.5", "٣"])
NAMES = ("format", "text-column", "id-column", "keep-column", "partition-rows", "backend", "device", "precision",
         "max-tokens", "long-documents", "table", "max-reject-fraction", "departed", "workers")  # fmt: skip
PLACES = ("corpus", "work", "model")


def flags(folder: Path, changes: dict[str, str], places: dict[str, str]) -> list[str]:
    """Arguments of a job over a folder without objects; where a place is odd, it is odd below that folder."""
    given = {"corpus": "corpus", "work": "work", "model": "model", **places}
    paths = {name: f"{folder}/{place}" for name, place in given.items()}
    values = {**paths, "warehouse": f"duckdb:///{folder}/x.duckdb", **changes}
    return [f"--{name}={value}" for name, value in values.items()]


def assert_clear(arguments: list[str]) -> None:
    """Run a command, and read what it says."""
    result = CliRunner().invoke(main, arguments)
    crash = "".join(traceback.format_exception(*result.exc_info)) if result.exc_info else ""
    assert result.exit_code in (0, 1, 2), result.output + crash
    assert result.exception is None or isinstance(result.exception, SystemExit), crash
    assert "Traceback" not in result.output
    assert result.output.strip()


@pytest.mark.parametrize("command", ["run", "plan", "score"])
@FEW
@given(
    changes=st.dictionaries(st.sampled_from(NAMES), WORDS | ODD | NUMBERS, max_size=3),
    places=st.dictionaries(st.sampled_from(PLACES), WORDS | ODD, max_size=2),
)
@example({}, {"corpus": "a\0b"})
@example({}, {"work": "a\0b"})
@example({}, {"model": "a\0b"})
@example({}, {"model": "\ud800"})
@example({}, {"corpus": "["})
def test_arguments_of_a_job(tmp_path: Path, command: str, changes: dict[str, str], places: dict[str, str]) -> None:
    """Options that are wrong, contradict each other, or name places that cannot be."""
    assert_clear([command, *flags(tmp_path, changes, places)])


@pytest.mark.parametrize("command", ["validate", "load", "report", "status"])
@FEW
@given(place=WORDS | ODD, warehouse=st.none() | WORDS | ODD)
@example("a\0b", None)
def test_arguments_that_name_a_run(tmp_path: Path, command: str, place: str, warehouse: str | None) -> None:
    """Runs that are none, and warehouses that are none."""
    run = f"{tmp_path}/{place}"
    named = [run] if command in ("report", "status") else [f"--run={run}"]
    more = [f"--warehouse={warehouse}"] if warehouse is not None and command != "status" else []
    assert_clear([command, *named, *more])


@FEW
@given(st.lists(WORDS | ODD | st.sampled_from(["run", "plan", "--json", "--run", "-h", "bench", "models"]), max_size=4))
def test_words_of_any_kind(words: list[str]) -> None:
    """Unknown commands and options, and options of other commands."""
    assert_clear(words)
