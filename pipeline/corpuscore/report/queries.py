"""SQL to go on with after a run: the strongest documents of a label, the rejects, the documents by object."""

from __future__ import annotations

from collections.abc import Sequence


def queries(kind: str, table: str, labels: Sequence[str], run_id: str) -> dict[str, str]:
    """Statements by what they are for; none for warehouses whose tables are read through an engine of the user's own.

    Args:
        kind: Of the warehouse, such as duckdb.
        table: NAME or SCHEMA.NAME of the scores.
        labels: That have a column, the one that matters most first.
        run_id: Of the run.
    """
    if kind not in ("duckdb", "postgresql") or not labels:
        return {}
    label = labels[0].replace('"', '""')
    strongest = f'SELECT document_id, "{label}"\nFROM {table}\nORDER BY "{label}" DESC\nLIMIT 20;'
    rejects = (
        f"SELECT reason, count(*) AS documents, min(object_uri) AS such_as\nFROM {table}_rejects\n"
        "GROUP BY reason\nORDER BY documents DESC;"
    )
    objects = (
        f"SELECT object_uri, sum(scored) AS scored, sum(rejected) AS rejected, max(loaded_at) AS loaded_at\n"
        f"FROM {table}_ledger\nWHERE run_id = '{run_id}'\nGROUP BY object_uri\nORDER BY scored DESC;"
    )
    return {
        f"the strongest documents for {labels[0]}": strongest,
        "rejects by reason": rejects,
        "what this run loaded, by object": objects,
    }
