"""Arguments of a job, shared by the commands that take one; the Job checks them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, get_args, get_origin

import click

from corpuscore.errors import JobError
from corpuscore.job import Job, section_of
from corpuscore.words import flag_of

#: The work location, for those who always use the same one.
WORK_VARIABLE = "CORPUSCORE_WORK"

Command = TypeVar("Command", bound=Callable[..., Any])

_METAVARS = {
    "corpus": "URI",
    "work": "URI",
    "warehouse": "URL",
    "cluster": "local|tcp://…|tls://…",
    "model": "NAME_OR_PATH",
}


class _JobOption(click.Option):
    """An option for a field of the Job: it knows the section of the form that the field is in."""

    def __init__(self, *names: Any, section: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section = section


class Sections(click.Command):
    """A command whose `--help` has its options in the sections of the form."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections in the order of the form, then what concerns the command alone."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if line := option.get_help_record(ctx):
                title = option.section if isinstance(option, _JobOption) else "Command"
                sections.setdefault(title, []).append(line)
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl(lines)


def job_options(command: Command) -> Command:
    """Give a command one option for each field of Job; None and () mean that it was not given."""
    for name in reversed(Job.model_fields):
        command = _option(name)(command)
    return command


def _option(name: str) -> Callable[[Command], Command]:
    field = Job.model_fields[name]
    flag = flag_of(name)
    text = (field.description or "").replace("`", "")
    option = partial(click.option, flag, name, cls=_JobOption, section=section_of(name), default=None)
    if not field.is_required() and field.default not in (None, (), False):
        text += f" [default: {field.default}]"
    if field.annotation is bool:
        return option(is_flag=True, help=text)
    if (
        field.annotation is not None
        and (choices := get_args(field.annotation))
        and all(isinstance(choice, str) for choice in choices)
    ):
        return option(type=click.Choice(choices), help=text)
    kinds = (field.annotation, *get_args(field.annotation))  # X, or X | None
    kind = next((number for number in (int, float) if number in kinds), str)
    is_list = get_origin(field.annotation) is tuple
    is_work = name == "work"
    return option(
        type=kind,
        multiple=is_list,
        metavar=_METAVARS.get(name),
        help=text,
        envvar=WORK_VARIABLE if is_work else None,
        show_envvar=is_work,
    )


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
        flags = ", ".join(flag_of(name) for name in missing)
        raise JobError(f"Missing: {flags}", next_step="give them; corpuscore run --help explains each")
    return Job.build(values)
