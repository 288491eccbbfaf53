"""What a service offers: its metadata as a ScorerInfo, and the job's options held against it.

A service of corpuscore says all of it. One of another maker has no labels and no fingerprint: the address's options
name labels and activation, and the fingerprint is made of all that the metadata has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from corpuscore.errors import CorpuscoreError, JobError, MessageError, ModelError, ServiceUnavailable
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelMetadataResponse
from corpuscore.options import ScoreOptions
from corpuscore.patience import Wait
from corpuscore.records import Activation, LongDocuments, ScorerInfo, digest
from corpuscore.scoring.remote.address import ServiceAddress
from corpuscore.scoring.remote.channel import Link
from corpuscore.scoring.remote.pace import wait_before
from corpuscore.scoring.remote.statuses import Meaning, Trouble

#: The backend of a ScorerInfo whose model is at a service.
BACKEND = "service"
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Offer:
    """A model at a service.

    Attributes:
        info: As of any scorer; the fingerprint is the service's own where it has one.
        card: What else the service says; names of tensors as the address has them.
        states_fingerprint: Whether the service has one, which each answer then carries as its version.
    """

    info: ScorerInfo
    card: ModelCard
    states_fingerprint: bool


def ask(link: Link, patience_seconds: float, pause: Callable[[float], None] = time.sleep) -> Offer:
    """What the service offers now; while it does not answer, it is asked again.

    Raises:
        ModelError: It has no such model, or one that cannot be used as a scorer.
        JobError: Options of the address that are missing, or contradict it.
        ServiceUnavailable: It does not answer for so long.
    """
    wait = Wait(f"The service at {link.address.url} does not answer", patience_seconds, quiet=5.0)
    attempt = 0
    while isinstance(found := link.metadata(), Trouble):
        if found.meaning in (Meaning.FINAL, Meaning.REFUSED, Meaning.BROKEN):
            raise found.final(link.address)
        if wait.over():
            raise ServiceUnavailable(
                f"The service at {link.address.url} did not answer for {wait.waited:.0f} s ({found})",
                rule="It says what the model is before anything is scored",
                next_step="start it, or correct the address, then run this again",
            )
        pause(wait_before(attempt, found.hint))
        attempt += 1
    return offer_of(link.address, found)


def offer_of(address: ServiceAddress, response: ModelMetadataResponse) -> Offer:
    """The offer in a service's metadata.

    Raises:
        ModelError: It is none of a classifier of texts, or has other labels than the address names.
        JobError: Labels or activation are said nowhere.
    """
    try:
        card = ModelCard.of_response(response)
    except MessageError as error:
        raise ModelError(
            f"The model at {address.url}: {error.value}", rule=error.rule, next_step=error.next_step
        ) from error
    labels = _labels(address, card)
    activation = _activation(address, card)
    output = address.output_name or card.output_name
    _check_columns(address, response, output, labels)
    stated = card.fingerprint if "fingerprint" in response.properties else ""
    states = _FINGERPRINT.fullmatch(stated) is not None
    info = ScorerInfo(
        labels=labels,
        activation=activation,
        fingerprint=stated if states else _fingerprint(response, stated, labels, activation, address),
        backend=BACKEND,
        precision=card.precision or "unstated",
        model=address.url,
        parameters=card.parameters,
    )
    named = replace(card, input_name=address.input_name or card.input_name, output_name=output)
    return Offer(info, named, states)


def _labels(address: ServiceAddress, card: ModelCard) -> tuple[str, ...]:
    if not card.labels and not address.labels:
        raise JobError(
            f"The service at {address.url} does not name the labels of {card.name!r}",
            rule="Each column of its probabilities becomes one of the table",
            next_step="name them in its address, in the order of the columns: ...?labels=joy,fear",
        )
    if card.labels and address.labels and card.labels != address.labels:
        raise JobError(
            f"The address {address.url} names the labels {', '.join(address.labels)}",
            rule=f"The service says that they are {', '.join(card.labels)}",
            next_step="leave labels out of the address",
        )
    return card.labels or address.labels


def _activation(address: ServiceAddress, card: ModelCard) -> Activation:
    if card.activation not in ("", "softmax", "sigmoid"):
        raise ModelError(
            f"The service at {address.url} says that its activation is {card.activation[:40]!r}",
            rule="It is softmax or sigmoid",
            next_step="mend the service's metadata",
        )
    if not card.activation and not address.activation:
        raise JobError(
            f"The service at {address.url} does not say how {card.name!r} makes probabilities",
            rule="The scores of a text sum to 1 (softmax), or each stands for itself (sigmoid)",
            next_step="say it in its address: ...&activation=softmax, or sigmoid",
        )
    if card.activation and address.activation and card.activation != address.activation:
        raise JobError(
            f"The address {address.url} says activation={address.activation}",
            rule=f"The service says that it is {card.activation}",
            next_step="leave activation out of the address",
        )
    return cast("Activation", card.activation or address.activation)


def _check_columns(
    address: ServiceAddress, response: ModelMetadataResponse, output: str, labels: tuple[str, ...]
) -> None:
    for tensor in response.outputs:
        columns = tensor.shape[-1] if tensor.shape else -1
        if tensor.name == output and columns > 0 and columns != len(labels):
            raise ModelError(
                f"The output {output!r} of the service at {address.url} has {columns} columns",
                rule=f"There are {len(labels)} labels: {', '.join(labels[:30])}",
                next_step="correct the labels in the address, or the service's metadata",
            )


def _fingerprint(
    response: ModelMetadataResponse,
    stated: str,
    labels: tuple[str, ...],
    activation: str,
    address: ServiceAddress,
) -> str:
    """16 hex digits over all that a service says of its model, and what the address adds to it."""

    def tensors(found: Any) -> list[list[Any]]:
        return [[tensor.name, tensor.datatype, list(tensor.shape)] for tensor in found]

    said = [
        response.name,
        list(response.versions),
        address.version,
        response.platform,
        tensors(response.inputs),
        tensors(response.outputs),
        [address.input_name, address.output_name],
        stated,
        labels,
        activation,
    ]
    return digest(said)[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a job asks of a model, see scoring.load_scorer; None: nothing is said about it."""

    backend: str
    device: str
    precision: str
    max_tokens: int | None
    long_documents: LongDocuments | None
    allow_pickle: bool


def check_options(offer: Offer, asked: Asked) -> None:
    """See that a job asks for nothing that the service does otherwise.

    Raises:
        JobError: It does; the message has the option that fits.
    """
    card, usual = offer.card, ScoreOptions()
    if asked.backend not in ("auto", BACKEND):
        _refuse(offer, f"--backend {asked.backend}", "The service has a backend of its own", "leave --backend out")
    if asked.device != "auto":
        said = "The service's model runs where the service is"
        _refuse(offer, f"--device {asked.device}", said, "leave --device out")
    if asked.precision not in ("auto", offer.info.precision):
        said = f"Its precision is {card.precision}" if card.precision else "The service decides about its precision"
        _refuse(offer, f"--precision {asked.precision}", said, "leave --precision out")
    if asked.allow_pickle:
        _refuse(offer, "--allow-pickle", "No weights are read here", "leave --allow-pickle out")
    tokens, option = asked.max_tokens, f"--max-tokens {asked.max_tokens}"
    if tokens is not None and tokens != (card.max_tokens or usual.max_tokens):
        if card.max_tokens:
            _refuse(offer, option, f"Its window has {card.max_tokens} tokens", f"give --max-tokens {card.max_tokens}")
        _refuse(offer, option, "The service decides where texts are cut", "leave --max-tokens out")
    how, option = asked.long_documents, f"--long-documents {asked.long_documents}"
    if how is not None and how != (card.long_documents or usual.long_documents):
        if card.long_documents:
            _refuse(offer, option, f"It does {card.long_documents}", f"give --long-documents {card.long_documents}")
        _refuse(offer, option, "The service decides what becomes of long texts", "leave --long-documents out")


def _refuse(offer: Offer, option: str, rule: str, next_step: str) -> NoReturn:
    raise JobError(f"{option} with the model {offer.info.model}", rule=rule, next_step=next_step)


def changed(planned: Offer, now: str) -> CorpuscoreError:
    """The error where a service has another model than the one that it had.

    Args:
        planned: What it had.
        now: What it has, in words.
    """
    return ModelError(
        f"The service at {planned.info.model} has another model than when this was planned: {now}, planned was "
        f"{planned.info.fingerprint}",
        rule="All scores of a run are of one model",
        next_step="put the planned model back and run this again, or plan again for the other one",
    )
