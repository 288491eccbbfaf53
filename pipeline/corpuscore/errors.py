"""Every error that corpuscore raises on purpose. The type says whether trying again can help.

CorpuscoreError
├── PermanentError            the same input fails again: Airflow fails at once, nobody retries
│   ├── JobError              an argument or a combination of arguments (exit status 2)
│   ├── StorageError          a store that refuses: no such bucket, credentials, read-only, full
│   │   ├── DamagedDocument   a document in the work location that is not what was written there
│   │   └── MissingDocument   one that a stage needs, and that is not there, or not any more
│   ├── CorpusError           an object or a listing: nothing there, unknown format, missing column, corrupt
│   │   └── ObjectChanged     an object is not the one that was planned (other ETag)
│   ├── ModelError            a checkpoint: not a model, no labels, unsafe file, other labels
│   ├── TrainingError         a training run that cannot go on: NaN loss, empty corpus, other options on resume
│   ├── ClusterError          a cluster that cannot be used: version mismatch, no workers of the kind asked for
│   ├── MessageError          a message of the inference protocol that is not what it must be
│   │   └── MessageTooLarge   one that is, and holds more than is taken at once
│   ├── UnknownModel          a service that has no model of this name or version
│   ├── Unauthorised          a service that was shown no token, or another one
│   ├── ValidationFailed      scores that must not be loaded
│   └── WarehouseError        a warehouse that refuses: login, other schema, unknown driver
└── TransientError            the same input may pass later: retried by the one owner of that failure
    ├── StorageUnavailable    timeouts, throttling and 5xx beyond the store's own retries
    ├── ClusterUnavailable    the scheduler cannot be reached, or workers were lost too often
    │   ├── BrokenProcess     a process that must end, since nothing that it does from now on can go well
    │   ├── SchedulerLost     the scheduler went away while work was under way; it may come back
    │   └── Suspected         a partition made no progress, or ended its workers
    ├── Overloaded            a service whose queue is full
    ├── Draining              a service that is about to end, and takes no more
    ├── Expired               a request whose time was over before it was answered
    ├── ServiceUnavailable    a service of a model that does not answer, or not with scores
    └── WarehouseUnavailable  the warehouse is down or restarting
        └── WarehouseBusy     it is there, and another writer has it
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class CorpuscoreError(Exception):
    """Base of all. A message states the value, the rule that it breaks, and the next step.

    Args:
        value: What was found, with the names and numbers that identify it.
        rule: What would have been right; may be empty where the value says it.
        next_step: What the reader can do now.
    """

    def __init__(self, value: str, *, rule: str = "", next_step: str = "") -> None:
        super().__init__(value)
        self.value = value
        self.rule = rule
        self.next_step = next_step

    def __str__(self) -> str:
        sentences = [self.value.rstrip("."), self.rule.rstrip(".")]
        if self.next_step:
            sentences.append(f"Next: {self.next_step.rstrip('.')}")
        return ". ".join(sentence for sentence in sentences if sentence) + "."

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by parts, so that an error crosses process boundaries whole."""
        return (_rebuild, (type(self), self.value, self.rule, self.next_step))


def _rebuild(kind: type[CorpuscoreError], value: str, rule: str, next_step: str) -> CorpuscoreError:
    return kind(value, rule=rule, next_step=next_step)


class PermanentError(CorpuscoreError):
    """The same input fails again; nothing retries it."""


class JobError(PermanentError):
    """An argument, or arguments that contradict each other."""


class StorageError(PermanentError):
    """A store that refuses a request for good."""


class DamagedDocument(StorageError):
    """A document in the work location that is not what was written there."""


class MissingDocument(StorageError):
    """A document of a run that is not there: its stage has not ended, or it has gone since."""


class CorpusError(PermanentError):
    """An object, or a listing, that cannot be scored as a whole."""


class ObjectChanged(CorpusError):
    """An object was replaced between plan and read."""


class ModelError(PermanentError):
    """A checkpoint that cannot be used as a scorer."""


class TrainingError(PermanentError):
    """A training run that cannot go on."""


class ClusterError(PermanentError):
    """A cluster that cannot do this work as it is."""


class MessageError(PermanentError):
    """A message of the inference protocol that is not what the protocol or the model asks for."""


class MessageTooLarge(MessageError):
    """A message with more in it than is taken at once; its parts would be."""


class UnknownModel(PermanentError):
    """A model or a version that a service has not."""


class Unauthorised(PermanentError):
    """A request to a service without its token."""


class ValidationFailed(PermanentError):
    """Scores with an error-level finding; the load did not start."""


class WarehouseError(PermanentError):
    """A warehouse that refuses a request for good."""


class TransientError(CorpuscoreError):
    """The same input may pass later."""


class StorageUnavailable(TransientError):
    """A store that did not answer properly, beyond its client's own retries."""


class ClusterUnavailable(TransientError):
    """A cluster that cannot be reached, or that lost its workers too often."""


class BrokenProcess(ClusterUnavailable):
    """A process in which everything fails from now on, such as one whose CUDA context is broken."""


class SchedulerLost(ClusterUnavailable):
    """A scheduler that went away while work was under way: whoever waits connects again when it is back."""


class Suspected(ClusterUnavailable):
    """A partition that made no progress for too long, whose worker was restarted for it."""


class Overloaded(TransientError):
    """A service whose queue is full.

    Args:
        value, rule, next_step: See CorpuscoreError.
        retry_seconds: After which there may be room.
    """

    def __init__(self, value: str, *, rule: str = "", next_step: str = "", retry_seconds: float = 1.0) -> None:
        super().__init__(value, rule=rule, next_step=next_step)
        self.retry_seconds = retry_seconds

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the hint, too."""
        return (*super().__reduce__(), {"retry_seconds": self.retry_seconds})


class Draining(TransientError):
    """A service that is about to end: it finishes what it has, and takes no more."""


class Expired(TransientError):
    """A request whose deadline passed before it was answered."""


class ServiceUnavailable(TransientError):
    """A service of a model that gave no scores for as long as it was waited for."""


class WarehouseUnavailable(TransientError):
    """A warehouse that is down or restarting."""


class WarehouseBusy(WarehouseUnavailable):
    """A warehouse that is there, and that another writer has."""


def unforeseen(kind: type[CorpuscoreError], doing: str, error: BaseException) -> CorpuscoreError:
    """Somebody else's error as one of ours, for where nobody would know what to do with it.

    Args:
        kind: What it becomes.
        doing: What was done, to begin the message with.
        error: What was raised; where it was goes into the message, since its traceback goes no further.
    """
    said = " ".join(str(error).split())[:300]
    places = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    return kind(
        f"{doing} failed{where} ({type(error).__name__}{': ' if said else ''}{said})",
        rule="This was not foreseen",
        next_step="if the message does not say what to correct, report it with these words",
    )


def to_json(error: CorpuscoreError) -> dict[str, str]:
    """An error as JSON-ready data, for what passes through a cluster or a metadata database."""
    return {"type": type(error).__name__, "value": error.value, "rule": error.rule, "next_step": error.next_step}


def from_json(data: Mapping[str, Any]) -> CorpuscoreError:
    """The error again, as the type that it was.

    A type that this version does not know, such as that of a newer worker, comes as the base of all, which nobody
    takes for transient.
    """
    kinds = {kind.__name__: kind for kind in _tree(CorpuscoreError)}
    return kinds.get(data["type"], CorpuscoreError)(data["value"], rule=data["rule"], next_step=data["next_step"])


def _tree(kind: type[CorpuscoreError]) -> Iterator[type[CorpuscoreError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
