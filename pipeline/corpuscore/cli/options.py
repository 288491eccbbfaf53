"""Arguments of a job, shared by the commands that take one; the Job checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin

import click

from corpuscore.errors import JobError
from corpuscore.job import Job

Command = TypeVar("Command", bound=Callable[..., Any])

_RENAMED = {"id_columns": "--id-column", "keep_columns": "--keep-column"}
_METAVARS = {
    "corpus": "URI",
    "work": "URI",
    "warehouse": "URL",
    "cluster": "local|tcp://…|tls://…",
    "model": "NAME_OR_PATH",
}


def job_options(command: Command) -> Command:
    """Give a command one option for each field of Job; None and () mean that it was not given."""
    for name in reversed(Job.model_fields):
        command = _option(name)(command)
    return command


def _option(name: str) -> Callable[[Command], Command]:
    field = Job.model_fields[name]
    flag = _RENAMED.get(name, f"--{name.replace('_', '-')}")
    text = (field.description or "").replace("`", "")
    if not field.is_required() and field.default not in (None, (), False):
        text += f" [default: {field.default}]"
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, default=None, help=text)
    if (
        field.annotation is not None
        and (choices := get_args(field.annotation))
        and all(isinstance(choice, str) for choice in choices)
    ):
        return click.option(flag, name, type=click.Choice(choices), default=None, help=text)
    kind = {int: int, float: float}.get(field.annotation, int if name == "workers" else str)  # type: ignore[arg-type]
    multiple = get_origin(field.annotation) is tuple
    return click.option(flag, name, type=kind, multiple=multiple, metavar=_METAVARS.get(name), help=text)


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that the user gave."""
    return {name: value for name, value in arguments.items() if value not in (None, ())}


def job_from(arguments: dict[str, Any]) -> Job:
    """The job of a command's arguments.

    Raises:
        JobError: An argument is missing or breaks a rule.
    """
    values = given(arguments)
    missing = [name for name, field in Job.model_fields.items() if field.is_required() and name not in values]
    if missing:
        flags = ", ".join(f"--{name}" for name in missing)
        raise JobError(f"Missing: {flags}", next_step="give them; corpuscore run --help explains each")
    return Job.build(values)
