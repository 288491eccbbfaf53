"""The steps of a distillation as Airflow tasks need them: a form, and somebody with a model's libraries to do it.

Training is imported only where a step runs: the machine that reads the DAG has no torch.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from corpuscore.errors import JobError
from corpuscore.orchestration.access import ClusterAccess
from corpuscore.orchestration.hooks import cluster_access
from corpuscore.training.limits import LIMITS

log = logging.getLogger(__name__)

_SHAPE = ("vocabulary", "embedding", "hidden", "layers")
_SETTINGS = ("epochs", "learning_rate", "batch_tokens", "seed")

#: What each step takes of the form, by the names that it has there.
_TAKES = {
    "sample_corpus": (
        "folder",
        "teacher",
        "texts",
        "labels",
        "label_names",
        "max_texts",
        "copies",
        "held_out",
        "seed",
    ),
    "teacher_scores": ("folder", "teacher", "device", "max_tokens"),
    "train_student": ("folder", "teacher", "gold_share", "storage", "device", "max_tokens"),
    "evaluate_against_teacher": ("folder", "teacher", "device"),
    "register_model": ("folder", "into"),
}


def distillation_params(defaults: Mapping[str, Any]) -> dict[str, Param]:
    """The form of the DAG.

    Args:
        defaults: Values to start with.

    Raises:
        JobError: A default for a field that there isn't.
    """
    params = {**_texts(), **_model(), **_student(), **_training()}
    unknown = sorted(set(defaults) - set(params))
    if unknown:
        raise JobError(
            f"Defaults were given for {', '.join(unknown)}",
            rule=f"The form has {', '.join(params)}",
            next_step="correct the Airflow option [corpuscore] distil_defaults",
        )
    for name, value in defaults.items():
        params[name].value = value
    return params


def run_step(step: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Run a step of corpuscore.training.stages: on a worker of the cluster, or right here on `local`.

    Raises:
        PermanentError, TransientError: Those of the step and of the cluster.
    """
    access = cluster_access(params["cluster"])
    arguments = _arguments(step, params)
    here = access.address == "local"
    result = _perform(step, arguments) if here else asyncio.run(_send(step, arguments, access))
    log.info("%s: %s", step, result)
    return result


async def _send(step: str, arguments: dict[str, Any], access: ClusterAccess) -> dict[str, Any]:
    """Have a worker do it: for as long as it takes, since its workers are watched, and a line each minute says so."""
    from corpuscore.cluster import connected, run_one

    async with connected(access.address, access.security) as client:
        key = (step, uuid.uuid4().hex[:12])
        result: dict[str, Any] = await run_one(client, _perform, step, arguments, what=step, key=key, say=log.info)
        return result


def _perform(step: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from corpuscore.training import stages

    result: dict[str, Any] = getattr(stages, step)(**arguments)
    return result


def _arguments(step: str, params: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {name: params[name] for name in _TAKES[step]}
    if step == "train_student":
        arguments["shape"] = {name: params[name] for name in _SHAPE}
        arguments["settings"] = {name: params[name] for name in _SETTINGS}
    return arguments


def _texts() -> dict[str, Param]:
    section = "Texts"
    return {
        "texts": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Texts",
            description_md="URIs of unlabelled texts, one a line; `#name` at the end names a column other than `text`.",
            section=section,
        ),
        "labels": Param(
            None,
            type=["string", "null"],
            title="Labelled texts",
            description_md="A labelled file: tab-separated, or Parquet with text and labels. May stay empty.",
            section=section,
        ),
        "label_names": Param(
            None,
            type=["string", "null"],
            title="Label names",
            description_md="A file that names the numbers in it, one a line; empty: the teacher's order.",
            section=section,
        ),
        "max_texts": _number(100_000, "max_texts", "Texts at the most", "Pieces of unlabelled texts.", section),
        "copies": _number(1, "copies", "Varied copies", "Of each labelled text.", section),
        "max_tokens": _number(256, "max_tokens", "Tokens at the most", "Longer texts are cut.", section),
        "held_out": _number(0.1, "held_out", "Held out", "Share of texts that is kept from training.", section),
    }


def _model() -> dict[str, Param]:
    section = "Models"
    return {
        "teacher": _text("Teacher", "A folder or hub name: any scorer.", "/models/roberta-emotions", section),
        "folder": _text("Folder of the run", "Where its steps meet; all workers see it.", "/data/distil/1", section),
        "into": _text("Register as", "Folder that the model is used from.", "/models/emotion-small", section),
        "cluster": Param(
            "local",
            type="string",
            pattern=r"^(local|(tcp|tls|conn)://.+)$",
            title="Dask cluster",
            description_md="`local`: in the Airflow worker. Else a worker of the cluster at this address or `conn://ID`.",
            section=section,
        ),
        "device": _choice("auto", ["auto", "cpu", "cuda"], "Device", "Where teacher and student run.", section),
    }


def _student() -> dict[str, Param]:
    section = "Student"
    return {
        "vocabulary": _number(20_000, "vocabulary", "Vocabulary", "Entries at the most.", section),
        "embedding": _number(384, "embedding", "Embedding", "Features of an embedding.", section),
        "hidden": _number(192, "hidden", "Hidden", "Channels of a direction.", section),
        "layers": _number(2, "layers", "Layers", "SRU++ layers, the last one with attention.", section),
        "storage": _choice("int8", ["int8", "fp16", "fp32"], "Storage", "How weights are saved.", section),
    }


def _training() -> dict[str, Param]:
    section = "Training"
    return {
        "epochs": _number(10, "epochs", "Epochs", "Times that every text is seen.", section),
        "learning_rate": _number(2e-3, "learning_rate", "Learning rate", "At its peak.", section),
        "batch_tokens": _number(2048, "batch_tokens", "Tokens a step", "Size of a batch.", section),
        "gold_share": _number(0.5, "gold_share", "Share of gold", "Weight of gold labels.", section),
        "seed": _number(1, "seed", "Seed", "The same seed gives the same model.", section),
    }


def _number(default: float, limit: str, title: str, description: str, section: str) -> Param:
    least, most = LIMITS[limit]
    kind = "integer" if isinstance(default, int) else "number"
    return Param(
        default, type=kind, minimum=least, maximum=most, title=title, description_md=description, section=section
    )


def _text(title: str, description: str, example: str, section: str) -> Param:
    return Param(
        type="string", minLength=1, title=title, description_md=description, examples=[example], section=section
    )


def _choice(default: str, choices: list[str], title: str, description: str, section: str) -> Param:
    return Param(default, type="string", enum=choices, title=title, description_md=description, section=section)
