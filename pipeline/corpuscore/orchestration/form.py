"""The trigger form of the DAG, from the schema of the Job that the command line has too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from corpuscore.errors import JobError
from corpuscore.job import Job

#: Where the form takes more than the Job: a value that names an Airflow connection, resolved when a task needs it.
_CONNECTIONS = {
    "cluster": "`conn://ID` takes address, TLS files and dashboard from the Airflow connection ID.",
    "warehouse": "`conn://ID` takes all of it, the password too, from the Airflow connection ID.",
}

#: What JSON Schema says of a field and the form repeats as it is.
_RULES = (
    "type",
    "items",
    "enum",
    "pattern",
    "format",
    "minLength",
    "minItems",
    "minimum",
    "maximum",
    "uniqueItems",
    "title",
    "section",
)


def job_params(defaults: Mapping[str, Any]) -> dict[str, Param]:
    """One Param a field of the Job, in its order, with its checks, its section and its examples.

    Args:
        defaults: Values to start with in place of the Job's own.

    Raises:
        JobError: A default for a field that there isn't.
    """
    fields: dict[str, dict[str, Any]] = Job.model_json_schema()["properties"]
    unknown = sorted(set(defaults) - set(fields))
    if unknown:
        raise JobError(
            f"Defaults were given for {', '.join(unknown)}",
            rule=f"The form has {', '.join(fields)}",
            next_step="correct the Airflow option [corpuscore] defaults",
        )
    return {name: _param(name, field, defaults) for name, field in fields.items()}


def _param(name: str, field: dict[str, Any], defaults: Mapping[str, Any]) -> Param:
    given = {"default": defaults.get(name, field.get("default"))} if name in defaults or "default" in field else {}
    schema = {**field, **_flat(field.get("anyOf", []))}
    rules = {rule: schema[rule] for rule in _RULES if rule in schema}
    if schema["type"] == "array" and "default" in field:
        rules["type"] = ["array", "null"]  # else the form insists on an entry
    if name == "cluster":
        rules["pattern"] = r"^(local|(tcp|tls|conn)://.+)$"
    return Param(**given, description_md=_description(name, field), **_suggestions(field), **rules)


def _flat(alternatives: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema for `T or null`, which the form draws as a field that may stay empty."""
    merged: dict[str, Any] = {}
    for alternative in alternatives:
        merged.update({rule: value for rule, value in alternative.items() if rule != "type"})
    return {**merged, "type": [alternative["type"] for alternative in alternatives]} if alternatives else {}


def _suggestions(field: dict[str, Any]) -> dict[str, Any]:
    """Examples of a single value are offered while typing; those of a list would become its only choices."""
    return {"examples": field["examples"]} if "examples" in field and field.get("type") != "array" else {}


def _description(name: str, field: dict[str, Any]) -> str:
    sentences = [field["description"], _CONNECTIONS.get(name, "")]
    if field.get("type") == "array":
        sentences.append("One a line.")
        sentences += [f"For example {_listed(example)}." for example in field.get("examples", [])[:1]]
    return " ".join(filter(None, sentences))


def _listed(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)
