"""What Airflow learns of this package through the entry point `apache_airflow_provider`."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Connection types with their forms, extra links and the section `[corpuscore]` of the configuration."""
    return {
        "package-name": "corpuscore",
        "name": "corpuscore",
        "description": "Scores text corpora with transformer classifiers on Dask, exactly once.",
        "connection-types": [_DASK, _WAREHOUSE],
        "extra-links": ["corpuscore.orchestration.operator.DaskDashboardLink"],
        "config": {
            "corpuscore": {"description": "Settings of the DAGs score_corpus and distil_student.", "options": _OPTIONS}
        },
    }


def _text(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}


_DASK = {
    "connection-type": "dask",
    "hook-class-name": "corpuscore.orchestration.hooks.DaskHook",
    "hook-name": "Dask cluster",
    "conn-fields": {
        "dashboard": _text("Dashboard", "Address that a browser reaches, such as https://dask.example.com/status."),
        "ca_file": _text("TLS authority", "PEM file on the Airflow workers and triggerers; given: tls://."),
        "cert_file": _text("TLS certificate", "PEM file of the client."),
        "key_file": _text("TLS key", "PEM file of the client."),
    },
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "login", "password", "extra"],
        "relabeling": {"host": "Scheduler"},
        "placeholders": {"host": "dask-scheduler", "port": "8786"},
    },
}

_WAREHOUSE = {
    "connection-type": "corpuscore_warehouse",
    "hook-class-name": "corpuscore.orchestration.hooks.WarehouseHook",
    "hook-name": "corpuscore warehouse",
    "conn-fields": {
        "driver": {
            "label": "Driver",
            "description": "duckdb takes only the database: the path of its file.",
            "schema": {"type": "string", "default": "postgresql", "enum": ["postgresql", "duckdb"]},
        },
    },
    "ui-field-behaviour": {
        "hidden-fields": ["extra"],
        "relabeling": {"schema": "Database"},
        "placeholders": {"host": "warehouse.example.com", "port": "5432", "schema": "analytics"},
    },
}


def _option(kind: str, default: str, example: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "default": default,
        "example": example,
    }


_OPTIONS = {
    "schedule": _option(
        "string", "", "@daily", "Cron expression or preset of score_corpus; empty: runs start by hand or by the API."
    ),
    "defaults": _option(
        "string",
        "",
        '{"corpus": ["s3://bucket/paragraphs/"], "work": "s3://bucket/work/", "warehouse": "conn://warehouse"}',
        "JSON object: the values that the form starts with, and that scheduled runs take.",
    ),
    "distil_defaults": _option(
        "string",
        "",
        '{"cluster": "conn://gpus"}',
        "JSON object: what the form of distil_student starts with.",
    ),
    "parallel_chunks": _option("integer", "16", "32", "Chunks of one run that are in flight at a time."),
}
