"""What each error means to a client: the one place that knows the gRPC and the HTTP status of it."""

from __future__ import annotations

from dataclasses import dataclass

from corpuscore.errors import (
    CorpuscoreError,
    Draining,
    Expired,
    JobError,
    MessageError,
    MessageTooLarge,
    Overloaded,
    Unauthorised,
    UnknownModel,
)

#: After which a client may look for a service that is about to end: another one, or the next.
DRAINING_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Meaning:
    """An error in the words of the protocols.

    Attributes:
        grpc: Name of the gRPC status.
        http: Status of HTTP.
        retry_seconds: After which the same request may be answered; None: never, or nobody knows.
    """

    grpc: str
    http: int
    retry_seconds: float | None = None


#: By type, the more special ones first.
_MEANINGS: tuple[tuple[type[CorpuscoreError], Meaning], ...] = (
    (MessageTooLarge, Meaning("INVALID_ARGUMENT", 413)),
    (MessageError, Meaning("INVALID_ARGUMENT", 400)),
    (JobError, Meaning("INVALID_ARGUMENT", 400)),
    (UnknownModel, Meaning("NOT_FOUND", 404)),
    (Unauthorised, Meaning("UNAUTHENTICATED", 401)),
    (Draining, Meaning("UNAVAILABLE", 503, DRAINING_RETRY_SECONDS)),
    (Expired, Meaning("DEADLINE_EXCEEDED", 504)),
    (CorpuscoreError, Meaning("INTERNAL", 500)),
)


def meaning_of(error: CorpuscoreError) -> Meaning:
    """What an error means to the client that gets it."""
    if isinstance(error, Overloaded):
        return Meaning("RESOURCE_EXHAUSTED", 429, error.retry_seconds)
    return next(meaning for kind, meaning in _MEANINGS if isinstance(error, kind))


def unknown_model(asked: str, version: str, name: str, fingerprint: str) -> UnknownModel | None:
    """The error where another model, or another version of it, is asked for; None where it is this one.

    Args:
        asked, version: By the client; an empty version is whichever there is.
        name, fingerprint: Of the model that is served.
    """
    if asked != name:
        return UnknownModel(
            f"Model {asked[:80]!r}", rule=f"This service has {name!r} alone", next_step=f"ask for {name!r}"
        )
    if version not in ("", fingerprint):
        return UnknownModel(
            f"Version {version[:80]!r} of model {name!r}",
            rule=f"This service has {fingerprint!r} alone",
            next_step="ask for that version, or name none",
        )
    return None


def unauthorised() -> Unauthorised:
    """The error where the token is missing or another one."""
    return Unauthorised(
        "The request has no token that this service knows",
        rule="It stands in authorization: Bearer TOKEN",
        next_step="send the service's token",
    )


def draining() -> Draining:
    """The error where the service takes no more."""
    return Draining(
        "This service is about to end",
        rule="It finishes what it has, and takes no more",
        next_step="send the request again, to another one",
    )
