"""Scoring: a model and the engine around it.

    load_scorer(model) -> Scorer        weights loaded, ready to score
    describe_scorer(model) -> ScorerInfo    the same labels and fingerprint, without the weights

Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from corpuscore.errors import JobError
from corpuscore.records import LongDocuments, ScorerInfo
from corpuscore.scoring.remote.address import is_service

if TYPE_CHECKING:
    from corpuscore.scoring.backends import BackendModule
    from corpuscore.scoring.checkpoint import Checkpoint
    from corpuscore.scoring.scorer import Scorer

__all__ = ["describe_scorer", "load_scorer"]


def load_scorer(
    model: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    max_tokens: int = 512,
    long_documents: LongDocuments = "truncate",
    allow_pickle: bool = False,
    threads: int | None = None,
    token_budget: int | None = None,
) -> Scorer:
    """Load a classifier with its engine.

    Args:
        model: `bundled`, a folder, a hub name, or the address of a service, see scoring.remote.
        backend: `auto` or the name of a file in backends/.
        device: auto, cpu or cuda.
        precision: auto, fp32, bf16, fp16, int8 or fp8, as far as the backend can do it on the device.
        max_tokens: Window of the model in tokens, special tokens included.
        long_documents: Beyond max_tokens: cut, or score windows and take their mean or max.
        allow_pickle: Read pickled weights where there are no safetensors; a pickle can run code.
        threads: CPU threads of the forward pass and of the tokenizer; None: what the libraries choose.
        token_budget: Tokens of one forward pass; None: what suits the backend.

    Raises:
        JobError: An option that this model or device cannot do.
        ModelError: Not a checkpoint that can be used as a scorer.
        ServiceUnavailable: The service does not answer.
    """
    if is_service(model):
        _check_threads(model, threads)
        remote = _remote()
        asked = remote.Asked(
            backend=backend, device=device, precision=precision, max_tokens=max_tokens,
            long_documents=long_documents, allow_pickle=allow_pickle,
        )  # fmt: skip
        scorer: Scorer = remote.load(model, asked, token_budget)
        return scorer
    from corpuscore.scoring.engine import Engine

    checkpoint, module, info, where = _resolve(model, backend, device, precision, max_tokens, allow_pickle)
    loaded = module.load(checkpoint, info, device=where, threads=threads)
    return Engine(loaded, max_tokens=max_tokens, long_documents=long_documents, token_budget=token_budget)


def describe_scorer(
    model: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    max_tokens: int | None = None,
    long_documents: LongDocuments | None = None,
    allow_pickle: bool = False,
) -> ScorerInfo:
    """What load_scorer's result says of itself, without loading the weights; same arguments, same errors.

    Where max_tokens or long_documents is None, nothing is said about it.
    """
    if is_service(model):
        remote = _remote()
        asked = remote.Asked(
            backend=backend, device=device, precision=precision, max_tokens=max_tokens,
            long_documents=long_documents, allow_pickle=allow_pickle,
        )  # fmt: skip
        info: ScorerInfo = remote.describe(model, asked)
        return info
    return _resolve(model, backend, device, precision, max_tokens, allow_pickle)[2]


def _resolve(
    model: str, backend: str, device: str, precision: str, max_tokens: int | None, allow_pickle: bool
) -> tuple[Checkpoint, BackendModule, ScorerInfo, str]:
    """Checkpoint, backend, info and device: decided here alone, so that a plan and its workers agree."""
    from corpuscore.scoring.backends import choose_precision, find_backend
    from corpuscore.scoring.checkpoint import find_checkpoint
    from corpuscore.scoring.devices import resolve_device

    checkpoint = find_checkpoint(model, allow_pickle=allow_pickle)
    name, module = find_backend(backend, checkpoint)
    module.check(checkpoint)
    checkpoint.check_vocabulary()
    where = resolve_device(device)
    asked = choose_precision(precision, where, name)
    found = module.arithmetic(checkpoint.config, where, asked)
    _check_positions(model, max_tokens, module.max_tokens(checkpoint.config))
    if max_tokens is not None:
        checkpoint.note_length(max_tokens)
    info = ScorerInfo(
        labels=checkpoint.labels,
        activation=checkpoint.activation,
        fingerprint=checkpoint.fingerprint(name, found.precision, found.kind),
        backend=name,
        precision=found.precision,
        model=model,
        parameters=checkpoint.parameters,
        arithmetic=found.kind,
    )
    return checkpoint, module, info, where


def _remote() -> ModuleType:
    """The module whose model is at a service.

    Raises:
        JobError: Its libraries are not installed.
    """
    try:
        from corpuscore.scoring.remote import scorer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("google", "grpc"):
            raise
        raise JobError(
            f"Package {error.name} is not installed",
            rule="A model at a service needs what the extra `service` brings",
            next_step="pip install 'corpuscore[service]', on each machine that scores",
        ) from None
    return scorer


def _check_threads(model: str, threads: int | None) -> None:
    if threads is not None:
        raise JobError(f"threads={threads} with the model {model}", rule="Its service decides about its threads")


def _check_positions(model: str, wanted: int | None, most: int | None) -> None:
    if wanted is not None and most is not None and wanted > most:
        raise JobError(
            f"--max-tokens {wanted} with model {model}",
            rule=f"the model has {most} positions",
            next_step=f"use --max-tokens {most} or fewer; --long-documents mean scores long texts in windows",
        )
