"""What a corpus's URI may mean, and which paths are left out: pure rules about names, which no store is asked for.

A URI that names no object may be meant in several ways. They are tried in this order, and the first one that finds an
object is taken:

1. the folder of exactly this name, also where the name has `[`, `*` or `{` in it;
2. a glob pattern of objects: `*` and `?` stay in a folder, `**` does not, `{a,b}` is either;
3. the same as a pattern of folders, with all that is in them: `2024-01-*` where days are folders;
4. in a bucket, all objects whose names begin so: `s3://bucket/2024-`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fsspec.utils import glob_translate

from corpuscore.errors import CorpusError
from corpuscore.storage import canonical_uri, is_listed, path_of

Belongs = Callable[[str], bool]

_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_ALTERNATIVES = 1_000
#: A name that starts with "." or "_", below the folder; "." and ".." are none: in a bucket they are names like others.
_HIDDEN = re.compile(r"/(?:_|\.(?!\.?(?:/|$)))")
#: How Hadoop and EMR end the names of objects that stand for a folder.
_FOLDER_MARK = "$folder$"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to take a URI that names no object.

    Attributes:
        prefix: Canonical URI; what begins with it is listed.
        belongs: Whether an object of this path is meant.
        inside: The same for objects in folders that the pattern names, which are meant where no object belongs; None
            where the URI is no pattern.
    """

    prefix: str
    belongs: Belongs
    inside: Belongs | None = None

    def meant(self, paths: Iterable[str]) -> Belongs | None:
        """What this way takes of some paths that are there; None where it takes none of them."""
        paths = list(paths)
        for belongs in filter(None, (self.belongs, self.inside)):
            if any(map(belongs, paths)):
                return belongs
        return None


def ways_of(canonical: str) -> list[Way]:
    """The ways in which a canonical URI may be meant, in the order in which they are tried.

    Raises:
        CorpusError: Its braces stand for too many patterns.
    """
    scheme, path = canonical.partition("://")[0], path_of(canonical)
    if not is_listed(canonical):
        return []
    folder = canonical.rstrip("/") + "/"
    ways = [Way(folder, _visible_below(folder))]
    patterns = alternatives(path)
    if len(patterns) > 1 or _MAGIC.search(path):
        prefix = f"{scheme}://{_common_start(patterns)}"
        visible, matches = _visible_below(prefix), matcher(pattern.rstrip("/") for pattern in patterns)
        inside = Way(prefix, lambda one: visible(one) and any(map(matches, _parents(one))))
        found = Way(prefix, lambda one: visible(one) and matches(one), inside.belongs)
        ways.append(inside if canonical.endswith("/") else found)
    elif scheme != "file" and not canonical.endswith("/") and "/" in path:
        ways.append(Way(canonical, _visible_below(canonical)))
    return ways


def way_taken(canonical: str, paths: Sequence[str]) -> tuple[str, Belongs] | None:
    """The prefix and the rule by which a listing took a URI, judged by the paths that it named.

    Where it named none, as for a corpus without documents, the rule that would have been the first to hold.
    """
    ways = ways_of(canonical)
    for way in ways:
        start = path_of(way.prefix)
        if belongs := way.meant(path for path in paths if path.startswith(start)):
            return way.prefix, belongs
    plain = ways[1] if len(ways) > 1 and ways[1].inside else ways[0] if ways else None
    return (plain.prefix, plain.belongs) if plain else None


def alternatives(pattern: str) -> list[str]:
    """The patterns that one with `{a,b}` stands for, each once.

    Raises:
        CorpusError: There are too many.
    """
    found = [pattern]
    while any(map(_BRACES.search, found)):
        found = list(dict.fromkeys(one for each in found for one in _opened(each)))
        if len(found) > _MOST_ALTERNATIVES:
            raise CorpusError(
                f"{pattern} stands for more than {_MOST_ALTERNATIVES} patterns", next_step="use * in place of braces"
            )
    return found


def _opened(pattern: str) -> list[str]:
    """A pattern without its first innermost braces."""
    group = _BRACES.search(pattern)
    if group is None:
        return [pattern]
    return [pattern[: group.start()] + choice + pattern[group.end() :] for choice in group[1].split(",")]


def matcher(patterns: Iterable[str]) -> Belongs:
    """Whether a path matches one of some glob patterns, as a whole."""
    compiled = [re.compile(glob_translate(pattern)).match for pattern in patterns]
    return lambda path: any(match(path) for match in compiled)


def excluder(patterns: Iterable[str], folder: str) -> Belongs:
    """Whether a path is left out of a corpus by patterns, itself or a folder that it is in.

    A pattern without a slash is a name at any depth below the folder; one with a slash begins at the folder; a full
    URI or an absolute path is taken as it is.

    Args:
        patterns: As the user gave them.
        folder: Path of the folder that the corpus's URI names, or in which its objects lie.

    Raises:
        CorpusError: Braces stand for too many patterns.
    """
    absolute: list[str] = []
    relative: list[str] = []
    for pattern in patterns:
        is_absolute = "://" in pattern or pattern.startswith(("/", "~"))
        plain = path_of(canonical_uri(pattern)) if is_absolute else pattern
        plain = plain.rstrip("/") if "/" in plain.rstrip("/") else f"**/{plain.rstrip('/')}"
        (absolute if is_absolute else relative).extend(alternatives(plain))
    matches_whole, matches_rest, start = matcher(absolute), matcher(relative), len(folder.rstrip("/")) + 1

    def leaves_out(path: str) -> bool:
        if not (absolute or relative):
            return False
        return any(
            matches_whole(one) or matches_rest(one[start:]) for one in (path, *_parents(path)) if len(one) > start
        )

    return leaves_out


def folder_of(uri: str) -> str:
    """The path of the folder that a URI to be listed lies in: all up to its last slash."""
    return path_of(uri).rpartition("/")[0]


def _visible_below(prefix: str) -> Belongs:
    root = folder_of(prefix)
    return lambda path: not is_hidden(path.removeprefix(root))


def is_hidden(path: str) -> bool:
    """Whether a path below a corpus's folder is none of a document: hidden, a marker, or a folder."""
    return path.endswith(("/", _FOLDER_MARK)) or _HIDDEN.search(path) is not None


def _parents(path: str) -> Iterator[str]:
    """The folders that a path lies in."""
    *folders, _ = path.split("/")
    return accumulate(folders, lambda one, other: f"{one}/{other}")


def _common_start(patterns: Iterable[str]) -> str:
    """What all paths that match one of some patterns begin with."""
    starts = [pattern[: found.start()] if (found := _MAGIC.search(pattern)) else pattern for pattern in patterns]
    first, last = min(starts), max(starts)
    return first[: next((at for at, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), None)]
