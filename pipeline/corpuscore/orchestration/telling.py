"""How a task says what went wrong: in the words of the form, in three lines, and without a traceback.

What was found, the rule that it breaks, what to do next. Airflow logs a traceback of every exception but SystemExit, of
which it decides about a retry as of any other; so that is how a task ends whose error has been told.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from corpuscore.errors import CorpuscoreError
from corpuscore.job import Job
from corpuscore.words import flag_of

log = logging.getLogger(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_OPTION = re.compile(r"--[a-z]+(-[a-z]+)*")
_TITLES = {flag_of(name): f"“{field.title}”" for name, field in Job.model_fields.items()}


class Told(SystemExit):
    """The end of a task whose error is in its log already.

    Attributes:
        error: That one.
    """

    def __init__(self, error: CorpuscoreError) -> None:
        super().__init__(1)
        self.error = error


def in_form(text: str) -> str:
    """A message with the titles of the form's fields in place of the options of the command line."""
    text = text.replace("the arguments (corpuscore run --help)", "these fields of the form")
    return _OPTION.sub(lambda found: _TITLES.get(found[0], found[0]), text)


def told(task: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A task that says what went wrong before it ends; errors that are not ours go on as they are.

    Raises:
        Told: An error of ours has been told.
    """

    @functools.wraps(task)
    def telling(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        try:
            return task(*arguments, **named)
        except CorpuscoreError as error:
            for name, words in (("", error.value), ("Rule: ", error.rule), ("Next: ", error.next_step)):
                if words:
                    log.error("%s%s", name, in_form(words))
            raise Told(error) from None

    return telling
