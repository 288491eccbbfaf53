"""Whether a run would read what it writes."""

from __future__ import annotations

from collections.abc import Iterable

from corpuscore.corpus.patterns import ways_of
from corpuscore.errors import JobError
from corpuscore.storage import canonical_uri, path_of, scheme_of

#: What a work location holds, for patterns that may match it.
_OF_WORK = ("manifests/0.parquet", "parts/00/0.parquet", "receipts/00/0.json", "runs/0/run.json", "cuts/0/0")


def check_apart(corpus: Iterable[str], work: str, listed: Iterable[str] = ()) -> None:
    """Raise where work location and corpus lie in one another: a run would score its own results.

    Args:
        corpus: URIs as for list_objects.
        work: The work location.
        listed: Canonical URIs of the objects, once they are known.

    Raises:
        JobError: Naming both.
    """
    base = canonical_uri(work).rstrip("/") + "/"
    found = next((uri for uri in listed if uri.startswith(base)), None)
    for uri in map(canonical_uri, corpus):
        if found or _reaches(uri, base) or (uri.rstrip("/") + "/").startswith(base):
            raise JobError(
                f"The work location {work} and the corpus {found or uri} lie in one another",
                rule="what a run writes is no document of its corpus",
                next_step="choose a work location beside the corpus",
            )


def _reaches(uri: str, base: str) -> bool:
    """Whether a corpus's folder or pattern names what lies in a work location."""
    if scheme_of(uri) != scheme_of(base):
        return False
    paths = [path_of(base) + key for key in _OF_WORK]
    ways = [way for way in ways_of(uri) if way.inside or way.prefix.endswith("/")]  # not: all that begins so
    return any(
        path.startswith(path_of(way.prefix)) and (way.belongs(path) or (way.inside and way.inside(path)))
        for way in ways
        for path in paths
    )
