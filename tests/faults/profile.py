"""Which servers a run uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run runs on."""

    cluster: Literal["shared", "tight", "local"] = "shared"
    store: Literal["folder", "s3"] = "folder"
    warehouse: Literal["duckdb", "postgresql", "parquet", "iceberg"] = "duckdb"
    front: Literal["command", "airflow"] = "command"
