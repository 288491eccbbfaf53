from __future__ import annotations

import json
import pickle
from collections.abc import Iterator

import pytest

from corpuscore import errors
from corpuscore.errors import CorpuscoreError, PermanentError, TransientError


def _tree(kind: type[CorpuscoreError]) -> Iterator[type[CorpuscoreError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("kind", list(_tree(CorpuscoreError)), ids=lambda kind: kind.__name__)
def test_every_error_pickles_whole(kind: type[CorpuscoreError]) -> None:
    """An error crosses process boundaries with its type and all parts of its message."""
    error = kind("value 7", rule="a value is below 5", next_step="give a smaller one")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(copy) is kind
    assert str(copy) == str(error) == "value 7. a value is below 5. Next: give a smaller one."


@pytest.mark.parametrize("kind", list(_tree(CorpuscoreError)), ids=lambda kind: kind.__name__)
def test_every_error_says_whether_a_retry_can_help(kind: type[CorpuscoreError]) -> None:
    """Each error below the base is either permanent or transient, and stands in the tree of the module's docstring."""
    if kind is not CorpuscoreError:
        assert issubclass(kind, PermanentError) != issubclass(kind, TransientError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", list(_tree(CorpuscoreError)), ids=lambda kind: kind.__name__)
def test_every_error_passes_as_data(kind: type[CorpuscoreError]) -> None:
    """Type, value, rule and next step go through JSON whole."""
    error = kind("value 7", rule="a value is below 5", next_step="give a smaller one")
    copy = errors.from_json(json.loads(json.dumps(errors.to_json(error))))
    assert type(copy) is kind
    assert str(copy) == str(error)


def test_an_error_of_a_newer_version_is_not_taken_for_transient() -> None:
    """What this version does not know is repeated by nobody, and its words are kept."""
    told = errors.to_json(CorpuscoreError("value 7")) | {"type": "NotYetMade"}
    assert type(errors.from_json(told)) is CorpuscoreError
    assert "value 7" in str(errors.from_json(told))
