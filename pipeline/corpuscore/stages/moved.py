"""Objects of a run that are gone, or another version, since it was planned.

A run loads what its plan saw, whatever became of the corpus meanwhile: that is one moment of it. What happened since is
the next plan's to see, and until then the table holds rows that the corpus no longer has; so the load looks once more,
and says which they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from corpuscore.corpus import confirm_gone, list_versions
from corpuscore.errors import StorageError, StorageUnavailable
from corpuscore.records import CheckedPart, Finding
from corpuscore.runs import Run

#: A listing names 1,000 objects a request, so this is some ten seconds; of more objects, the next plan tells.
_OBJECTS = 100_000
#: A listing may be old: so many of the objects that it does not name are asked for one by one.
_ASKED = 1_000


def find_moved(opened: Run, parts: Sequence[CheckedPart]) -> list[Finding]:
    """Warnings about the objects of these parts that a listing no longer has, or has as another version.

    Args:
        opened: The run, whose corpus is listed.
        parts: What it has loaded.
    """
    documents: dict[str, int] = {}
    for part in parts:
        documents[part.uri] = documents.get(part.uri, 0) + part.scored + part.rejected
    if not opened.corpus or not 0 < len(documents) <= _OBJECTS:
        return []
    try:
        vanished, replaced = _moved(opened, documents)
    except (StorageError, StorageUnavailable) as error:
        message = f"The corpus was not looked at again after it was planned: {error}"
        return [Finding("moved", "warning", message, {"objects": len(documents)})]
    again = "plan again, with --departed remove if their rows shall go"
    newer = "plan again; their rows are replaced by those of the new version"
    return [
        *_warning("vanished", "deleted", again, vanished, documents),
        *_warning("replaced", "replaced", newer, replaced, documents),
    ]


def _moved(opened: Run, uris: Collection[str]) -> tuple[list[str], list[str]]:
    """Of these objects, those that are not there any more, and those that are another version."""
    now = list_versions(opened.corpus, opened.job.selection)
    planned = {partition.uri: partition.etag for partition in opened.manifest}
    vanished = sorted(uri for uri in uris if uri not in now)
    replaced = sorted(uri for uri in uris if uri in now and now[uri] != planned[uri])
    return confirm_gone(vanished, opened.corpus, opened.job.selection) if len(
        vanished
    ) <= _ASKED else vanished, replaced


def _warning(
    check: str, what: str, next_step: str, uris: Sequence[str], documents: dict[str, int]
) -> Iterable[Finding]:
    if not uris:
        return
    rows = sum(documents[uri] for uri in uris)
    message = (
        f"{len(uris):,} objects (such as {uris[0]}), with {rows:,} documents, were {what} after they were planned. "
        f"Rule: a run loads what its plan saw. Next: {next_step}."
    )
    yield Finding(check, "warning", message, {"objects": len(uris), "rows": rows, "examples": list(uris[:3])})
