"""# Score a corpus

Scores every paragraph of a corpus with a transformer classifier, exactly once, and lands the scores in a warehouse
table: one row a document, one probability a label.

    plan >> score (one task a chunk) >> validate >> load >> report

* **plan** lists the corpus, cuts it into partitions and freezes them as a manifest. What has been scored already, by
  this model and with these options, is not scored again: a daily run picks up only what is new or has changed.
* **score** hands the partitions to a Dask cluster. On a cluster with an address the task is deferred meanwhile and
  takes no worker slot; its button *Dask dashboard* leads to the work, its log shows the progress.
* **validate** checks the scores. Findings are in its log and in the run's folder; an error stops the load.
* **load** writes rows and ledger in one transaction, and reports the asset of the table as updated.
* **report** prints the summary into its log and writes a page of this execution into the run's folder `reports/`.

Every task can be cleared or retried at any time. Errors that a retry may cure are retried with growing pauses;
permanent ones fail at once and say what to do.

**Setting it up without editing this file:** section `[corpuscore]` of the Airflow configuration, for example

    AIRFLOW__CORPUSCORE__SCHEDULE=@daily
    AIRFLOW__CORPUSCORE__DEFAULTS={"corpus": ["s3://bucket/paragraphs/"], "work": "s3://bucket/work/", "warehouse": "conn://warehouse"}

Passwords belong in connections: `conn://ID` in the fields *Warehouse* and *Dask cluster*.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetAlias, dag, get_current_context, task

from corpuscore.orchestration import settings
from corpuscore.orchestration.form import job_params
from corpuscore.orchestration.operator import ScoreChunkOperator
from corpuscore.orchestration.retries import RETRIES
from corpuscore.orchestration.telling import told

SCORES = AssetAlias("corpuscore_scores")

#: What a mapped task is called.
_CHUNK = (
    "partition{% if task.chunk[1] - task.chunk[0] > 1 %}s {{ task.chunk[0] }} to {{ task.chunk[1] - 1 }}"
    "{% else %} {{ task.chunk[0] }}{% endif %}"
)


@dag(
    dag_id="score_corpus",
    schedule=settings.schedule(),
    catchup=False,
    max_active_runs=1,  # a run starts where the last one ended, and a DuckDB file takes one writer
    params=job_params(settings.defaults()),
    default_args=RETRIES,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    tags=["corpuscore"],
)
def score_corpus() -> None:
    """The graph; every task is one stage."""

    @task(execution_timeout=timedelta(hours=2))
    @told
    def plan() -> list[list[int]]:
        from corpuscore.orchestration import steps

        context = get_current_context()
        planned = steps.plan(context["params"])
        context["ti"].xcom_push("run", planned.run)
        context["ti"].xcom_push("planned", planned.to_json())
        return steps.chunks(planned, context["params"])

    @task(trigger_rule="none_failed", execution_timeout=timedelta(hours=2))  # also where there was nothing to score
    @told
    def validate(run: str) -> dict[str, Any]:
        from corpuscore.orchestration import steps

        return steps.validate(run, get_current_context()["params"])

    @task(execution_timeout=timedelta(hours=6), outlets=[SCORES])
    @told
    def load(run: str) -> dict[str, Any]:
        from corpuscore.orchestration import steps

        context = get_current_context()
        loaded = steps.load(run, context["params"])
        if loaded.work_ids_loaded or loaded.rows_removed:
            context["outlet_events"][SCORES].add(steps.table_asset(context["params"]), extra=loaded.to_json())
        return loaded.to_json()

    @task(execution_timeout=timedelta(hours=1))
    @told
    def report(run: str) -> dict[str, Any]:
        from corpuscore.orchestration import steps

        return steps.report(run, get_current_context()["params"])

    chunks = plan()
    run = chunks["run"]  # type: ignore[index]  # a decorated task returns an XComArg, typed without it
    scored = ScoreChunkOperator.partial(
        task_id="score",
        run=run,
        cluster="{{ params.cluster }}",
        map_index_template=_CHUNK,
        max_active_tis_per_dagrun=settings.parallel_chunks(),
    ).expand(chunk=chunks)
    scored >> validate(run) >> load(run) >> report(run)


score_corpus()
