"""In whatever order plans are loaded, the table is what the latest of them saw of each object, once."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.records import CheckedPart
from corpuscore.warehouse import LoadSummary, Warehouse, load_parts, open_warehouse, remove_objects
from tests.parts import KEPT, LABELS, PLANNED_AT, PartMaker, opened
from tests.servers.pg_proxy import Hold, pg_proxy, wait_for
from tests.servers.postgresql import new_table
from tests.servers.warehouses import Target

OBJECTS = "abcd"


@dataclass(frozen=True)
class Plan:
    """What one plan saw.

    Attributes:
        number: Its place in time.
        parts: Checked parts of its objects.
        scores: Score by document id, by object.
    """

    number: int
    parts: tuple[CheckedPart, ...]
    scores: dict[str, dict[str, float]]

    @property
    def planned_at(self) -> datetime:
        """Its time."""
        return PLANNED_AT + timedelta(seconds=self.number)


def make_plan(maker: PartMaker, number: int, versions: dict[str, int]) -> Plan:
    """A plan that saw these versions of objects, each in parts of its own cut."""
    parts: list[CheckedPart] = []
    scores: dict[str, dict[str, float]] = {}
    for uri, version in versions.items():
        sizes, scores[uri] = [2 + version, 3][: 1 + version % 2], {}
        for at, size in enumerate(sizes):
            first = sum(sizes[:at])
            parts.append(maker.checked(f"{uri}-{version}-{at}", uri, size, at, first=first, seed=version))
            rows = maker.rows(uri, size, at, first=first, seed=version).slice(at).to_pydict()
            scores[uri].update(zip(rows["document_id"], rows["joy"], strict=True))
    return Plan(number, tuple(parts), scores)


def load(warehouse: Warehouse, plan: Plan) -> LoadSummary:
    """What a load does with its parts."""
    run_id = f"run-{plan.number}"
    return load_parts(warehouse, run_id, "model", LABELS, KEPT, plan.parts, opened, planned_at=plan.planned_at)


def load_and_remove(warehouse: Warehouse, plan: Plan) -> None:
    """What a load does where departed objects are removed."""
    load(warehouse, plan)
    known = warehouse.objects("model")
    left = [uri for uri, item in known.items() if uri not in plan.scores and item.is_older(plan.planned_at)]
    remove_objects(warehouse, f"run-{plan.number}", "model", left, plan.planned_at)


def contents(warehouse: Warehouse) -> dict[str, dict[str, float]]:
    """Score by document id, by object, of all that is in the table; no document twice."""
    found = warehouse.summary(LABELS, strongest=["joy"], top=1_000_000).strongest["joy"]
    assert len({document.document_id for document in found}) == len(found)
    objects: dict[str, dict[str, float]] = {}
    for document in found:
        objects.setdefault(document.document_id.partition("#")[0], {})[document.document_id] = document.probability
    known = warehouse.objects("model")
    assert {uri for uri, item in known.items() if not item.gone} == set(objects)
    for uri, item in known.items():
        counts = warehouse.count(list(item.digests))
        assert (counts.scored, item.documents) == (len(objects.get(uri, {})), counts.scored + counts.rejected)
    return objects


_VERSIONS = st.dictionaries(st.sampled_from(OBJECTS), st.integers(0, 3), min_size=1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_VERSIONS, min_size=2, max_size=5), st.data())
def test_any_order_of_loads_and_removals(quick_target: Target, seen: list[dict[str, int]], data: st.DataObject) -> None:
    """Plans that are loaded in any order, also again, with and without removing: the latest of each object counts."""
    state: dict[str, tuple[int, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Target(quick_target.url, new_table()).open() as warehouse:
        plans = [make_plan(PartMaker(Path(folder)), number, versions) for number, versions in enumerate(seen)]
        warehouse.prepare(LABELS, KEPT)
        for plan in data.draw(st.lists(st.sampled_from(plans), min_size=2, max_size=8)):
            removing = data.draw(st.booleans())
            (load_and_remove if removing else load)(warehouse, plan)
            for uri, scores in plan.scores.items():
                if uri not in state or state[uri][0] <= plan.number:
                    state[uri] = (plan.number, scores)
            for uri in state.keys() - plan.scores.keys():
                if removing and state[uri][0] < plan.number:
                    state[uri] = (plan.number, {})
            assert contents(warehouse) == {uri: scores for uri, (_, scores) in state.items() if scores}


def _load_all(target: Target, plans: list[Plan]) -> None:
    """Load plans one after the other, opening the warehouse for each, as runs do."""
    for plan in plans:
        with target.open(patience_seconds=120) as warehouse:
            load_and_remove(warehouse, plan)


@pytest.mark.parametrize("seed", range(2))
def test_processes_that_load_plans_at_once(quick_target: Target, tmp_path: Path, seed: int) -> None:
    """Three processes load five plans each, in orders that a seed names; the last word is the latest plan's."""
    chance, maker = random.Random(seed), PartMaker(tmp_path / "parts")
    maker.folder.mkdir()
    seen = [{uri: chance.randrange(4) for uri in chance.sample(OBJECTS, chance.randint(1, 4))} for _ in range(5)]
    plans = [make_plan(maker, number, versions) for number, versions in enumerate(seen)]
    with quick_target.open() as warehouse:
        warehouse.prepare(LABELS, KEPT)
    spawning = multiprocessing.get_context("spawn")
    orders = [chance.sample(plans, len(plans)) for _ in range(3)]
    processes = [spawning.Process(target=_load_all, args=(quick_target, order)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    with quick_target.open() as warehouse:
        after = contents(warehouse)
        assert {uri: after.get(uri) for uri in plans[-1].scores} == plans[-1].scores
        for uri, scores in after.items():
            assert scores in [plan.scores.get(uri) for plan in plans]
        load_and_remove(warehouse, plans[-1])
        assert contents(warehouse) == plans[-1].scores


@pytest.mark.parametrize("older_is_held", [True, False])
def test_a_load_that_is_held_at_each_of_its_messages(postgresql: str, tmp_path: Path, older_is_held: bool) -> None:
    """One load stops at its n-th message while another of the same object runs, or waits: the later one counts."""
    maker, table, number, hold = PartMaker(tmp_path), new_table(), 0, Hold(0)
    with (
        pg_proxy(postgresql) as proxy,
        open_warehouse(proxy.url, table) as slow,
        open_warehouse(postgresql, table) as quick,
        ThreadPoolExecutor(2) as pool,
    ):
        quick.prepare(LABELS, KEPT)
        while number == 0 or hold.reached.is_set():
            a, b = f"a{number}", f"b{number}"
            older, newer = make_plan(maker, 1, {a: 1, b: 0}), make_plan(maker, 2, {a: 2})
            held, free = (older, newer) if older_is_held else (newer, older)
            proxy.rule = hold = Hold(number)
            loads = [pool.submit(load, slow, held)]
            wait_for(partial(held_or_over, hold, loads[0]))
            loads.append(pool.submit(load, quick, free))
            wait(loads[1:], timeout=0.1)
            hold.let_go()
            for ended in loads:
                ended.result(60)
            found = contents(quick)
            assert (found[a], found[b]) == (newer.scores[a], older.scores[b]), number
            number += 1
    assert number > 10


def held_or_over(hold: Hold, running: Future[LoadSummary]) -> bool:
    """Whether a load is where it is held, or has ended without coming there."""
    return hold.reached.is_set() or running.done()
