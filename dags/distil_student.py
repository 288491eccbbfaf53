"""# Distil a student

Trains a small, fast SRU++ model to score as a large one does, on texts of your own.

    sample_corpus >> teacher_scores >> train_student >> evaluate_against_teacher >> register_model

The steps meet in the run's folder, and each finds what is done already: a cleared or retried task goes on from its
last checkpoint. They run on a worker of the Dask cluster that the form names, which has to see that folder; `local`
runs them in the Airflow worker, which then needs torch. A step that finds other options than before in the folder
fails at once: take another folder.

The registered model is used by its folder, as the *Model* of `score_corpus`; the one that was there moves aside as
`<name>.previous`. Values to start with: `AIRFLOW__CORPUSCORE__DISTIL_DEFAULTS`, a JSON object.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from corpuscore.orchestration import settings
from corpuscore.orchestration.distillation import distillation_params, run_step
from corpuscore.orchestration.retries import RETRIES
from corpuscore.orchestration.telling import told


@dag(
    dag_id="distil_student",
    schedule=None,
    catchup=False,
    params=distillation_params(settings.defaults("distil_defaults")),
    default_args=RETRIES,
    doc_md=__doc__,
    tags=["corpuscore"],
)
def distil_student() -> None:
    """The graph; every task is one step."""

    @task(execution_timeout=timedelta(hours=6))
    @told
    def sample_corpus() -> dict[str, Any]:
        return run_step("sample_corpus", get_current_context()["params"])

    @task(execution_timeout=timedelta(days=1))
    @told
    def teacher_scores() -> dict[str, Any]:
        return run_step("teacher_scores", get_current_context()["params"])

    @task(execution_timeout=timedelta(days=3))
    @told
    def train_student() -> dict[str, Any]:
        return run_step("train_student", get_current_context()["params"])

    @task(execution_timeout=timedelta(hours=6))
    @told
    def evaluate_against_teacher() -> dict[str, Any]:
        return run_step("evaluate_against_teacher", get_current_context()["params"])

    @task(execution_timeout=timedelta(hours=1))
    @told
    def register_model() -> dict[str, Any]:
        return run_step("register_model", get_current_context()["params"])

    sample_corpus() >> teacher_scores() >> train_student() >> evaluate_against_teacher() >> register_model()


distil_student()
