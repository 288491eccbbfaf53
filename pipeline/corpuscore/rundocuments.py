"""What the JSON documents of a run hold, as far as others rely on it: who reads one is told what is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from corpuscore.records import CheckedPart, Finding, is_part_of


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Facts(_Document):
    run_id: str
    created_at: AwareDatetime
    started_at: AwareDatetime
    planned_at: AwareDatetime | None = None  # none in runs of older versions, until they are planned again
    manifest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    corpus: list[str] = Field(default_factory=list)
    job: dict[str, Any]


class _Findings(_Document):
    errors: int
    warnings: int
    findings: list[Finding]
    label_means: dict[str, float] = Field(default_factory=dict)
    previous_means: dict[str, float] = Field(default_factory=dict)
    score_bins: dict[str, list[int]] = Field(default_factory=dict)
    token_bins: list[int] = Field(default_factory=list)


class _Load(_Document):
    rows_loaded: int
    rejects_loaded: int
    rows_superseded: int
    rows_in_table: int
    rejects_in_table: int
    rows_outdated: int = 0
    rows_removed: int = 0
    findings: list[Finding] = Field(default_factory=list)
    started_at: str


class _Score(_Document):
    partitions: int
    tokens: int
    unique_texts: int
    busy: dict[str, float]
    began: float
    ended: float
    started_at: str


_KINDS: dict[str, type[_Document]] = {"findings": _Findings, "load": _Load, "score": _Score}
_PARTS = TypeAdapter(list[CheckedPart])


def facts_of(run_id: str, content: Any) -> dict[str, Any]:
    """run.json of a run.

    Raises:
        ValueError: It is none, or another's.
    """
    if _Facts.model_validate(content).run_id != run_id:
        raise ValueError(f"it is that of the run {content['run_id']}")
    return dict(content)


def document_of(name: str, content: Any) -> dict[str, Any]:
    """Another document of a run, by its name.

    Raises:
        ValueError: It does not hold what one of this name does.
    """
    _KINDS.get(name.partition("/")[0], _Document).model_validate(content)
    return dict(content)


def checked_of(work_ids: list[str], content: Any) -> list[CheckedPart]:
    """checked.json of a run with these work ids.

    Raises:
        ValueError: It lists other work, or what is no part of it.
    """
    parts = _PARTS.validate_python(content["parts"] if isinstance(content, Mapping) else content)  # a list in old ones
    if [part.work_id for part in parts] != work_ids:
        raise ValueError("it lists other work than the manifest")
    for part in parts:
        if not is_part_of(part.part, part.work_id):
            raise ValueError(f"it names {part.part}, which is no part of the work {part.work_id}")
    return parts
