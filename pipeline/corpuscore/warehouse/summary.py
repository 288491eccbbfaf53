"""The queries behind a report: aggregates over millions of rows, none of which leaves the warehouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from corpuscore.records import Status
from corpuscore.warehouse.names import TableName, quoted
from corpuscore.warehouse.protocol import Strongest, Summary

#: Runs a statement with values for $1, $2, ...; all its rows.
Query = Callable[..., list[tuple[Any, ...]]]


class Scope:
    """The rows that a query is about: a WHERE clause and its values."""

    def __init__(self, model: str | None, work_ids: Sequence[str] | None) -> None:
        conditions: list[str] = []
        self.values: list[Any] = []
        if model is not None:
            self.values.append(model)
            conditions.append(f"model = ${len(self.values)}")
        if work_ids is not None:
            self.values.append(list(work_ids))
            conditions.append(f"work_id IN (SELECT unnest(${len(self.values)}::text[]))")
        self.where = f"WHERE {' AND '.join(conditions)}" if conditions else ""


def summarise(
    query: Query,
    scores: TableName,
    rejects: TableName,
    scope: Scope,
    labels: Sequence[str],
    strongest: Sequence[str],
    top: int,
) -> Summary:
    """Sum the rows of a scope up; within one transaction, so that all figures are of one moment.

    Args:
        query: Of the open transaction.
        scores, rejects: The tables.
        scope: Which rows.
        labels: Score columns.
        strongest: Labels for which to find documents.
        top: Documents a label.
    """
    scored, truncated, tokens, *means = _totals(query, scores, scope, labels)
    reasons = _reasons(query, rejects, scope)
    wins = _wins(query, scores, scope, labels)
    return Summary(
        scored=scored,
        rejected=sum(reasons.values()),
        truncated=truncated or 0,
        tokens=int(tokens or 0),
        reasons=reasons,
        label_means=dict(zip(labels, means, strict=True)) if scored else {},
        label_shares={label: wins.get(index, 0) / scored for index, label in enumerate(labels)} if scored else {},
        strongest={label: _strongest(query, scores, scope, label, top) for label in strongest},
    )


def _totals(query: Query, scores: TableName, scope: Scope, labels: Sequence[str]) -> tuple[Any, ...]:
    """Rows, truncated rows, tokens, and the mean of each label."""
    means = "".join(f", avg({quoted(label)})" for label in labels)
    truncated = f"sum(CASE WHEN status = '{Status.TRUNCATED.value}' THEN 1 ELSE 0 END)"
    sql = f"SELECT count(*), {truncated}, sum(token_count){means} FROM {scores.sql} {scope.where}"
    return query(sql, *scope.values)[0]


def _reasons(query: Query, rejects: TableName, scope: Scope) -> dict[str, int]:
    """Rejects by reason, most frequent first."""
    sql = f"SELECT coalesce(reason, status), count(*) FROM {rejects.sql} {scope.where} GROUP BY 1 ORDER BY 2 DESC, 1"
    return dict(query(sql, *scope.values))


def _wins(query: Query, scores: TableName, scope: Scope, labels: Sequence[str]) -> dict[int, int]:
    """Documents by index of their strongest label; the first one of equals."""
    columns = ", ".join(map(quoted, labels))
    strongest = f"array_position(ARRAY[{columns}], greatest({columns})) - 1"
    return dict(query(f"SELECT {strongest}, count(*) FROM {scores.sql} {scope.where} GROUP BY 1", *scope.values))


def _strongest(query: Query, scores: TableName, scope: Scope, label: str, top: int) -> tuple[Strongest, ...]:
    sql = (
        f"SELECT document_id, {quoted(label)}, work_id FROM {scores.sql} {scope.where} "
        f"ORDER BY {quoted(label)} DESC, document_id LIMIT {int(top)}"
    )
    return tuple(Strongest(*row) for row in query(sql, *scope.values))
