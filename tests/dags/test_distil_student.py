from __future__ import annotations

import itertools

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.dag import DAG

from corpuscore.orchestration.distillation import distillation_params
from corpuscore.orchestration.retries import RetryByType
from infra.stack.home import CHECKOUT

STEPS = ["sample_corpus", "teacher_scores", "train_student", "evaluate_against_teacher", "register_model"]


@pytest.fixture(scope="module")
def dag() -> DAG:
    """The DAG as a site without any configuration sees it."""
    bag = DagBag(dag_folder=str(CHECKOUT / "dags"))
    assert not bag.import_errors
    return bag.dags["distil_student"]


def test_the_steps_follow_each_other(dag: DAG) -> None:
    """Sample, teach, train, compare, register."""
    assert [task.task_id for task in dag.topological_sort()] == STEPS
    for earlier, later in itertools.pairwise(STEPS):
        assert dag.task_dict[earlier].downstream_task_ids == {later}


def test_form_and_retries_are_like_those_of_scoring(dag: DAG) -> None:
    """All fields have a section and a description; permanent errors fail at once."""
    assert list(dag.params) == list(distillation_params({}))
    for name in dag.params:
        schema = dag.params.get_param(name).schema
        assert schema["section"]
        assert schema["description_md"]
    assert all(isinstance(task.retry_policy, RetryByType) and (task.retries or 0) > 1 for task in dag.tasks)
