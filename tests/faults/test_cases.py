"""The short form of the suite: a fixed list of cases, one seed each; `make test-faults` runs all with many seeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.case import ALL, Case
from tests.faults.cases import load_cases
from tests.faults.runner import Lane

pytestmark = pytest.mark.timeout(600)  # processes are started, killed and started again

load_cases()
_SHORT = [case for case in ALL.values() if case.short is not None]


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """Servers that the cases share."""
    with Lane(tmp_path_factory.mktemp("faults")) as lane:
        yield lane


@pytest.mark.parametrize("case", _SHORT, ids=lambda case: str(case.name))
def test_nothing_is_lost_or_doubled(case: Case, lane: Lane) -> None:
    """After the fault every document is there once, with its scores; the books meet, and nothing is left behind."""
    assert case.short is not None
    outcome = lane.run_short(case, case.short)
    assert (outcome.outcome, outcome.message) == ("survived", "")


def test_the_suite_sees_what_it_looks_for(lane: Lane) -> None:
    """A row that is gone counts as lost, one that is there twice as doubled, another score as an error."""
    one = "where document_id = 'plain-1.jsonl#3'"
    spoils = {
        "create table other (a int)": "survived",
        f"delete from scores {one}": "lost",
        f"insert into scores select * from scores {one}": "doubled",
        f"update scores set joy = joy / 2 {one}": "error",
        "delete from scores_runs": "error",
        f"update scores_ledger set scored = scored + 1 where work_id = (select work_id from scores {one})": "error",
    }
    assert lane.spoiled(list(spoils)) == list(spoils.values())
