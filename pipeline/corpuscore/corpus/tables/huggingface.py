"""Hugging Face data sets: a folder that `save_to_disk` wrote, or a repository as it lies on the hub.

Of a saved data set the files are read that its state.json names, and none of those that its cache left. Of a repository
those of its default configuration, all splits, as the head of its README.md says; where it says nothing, all that are
data.

Source: https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corpuscore.corpus.patterns import alternatives, matcher
from corpuscore.corpus.tables import paths_below, read_small
from corpuscore.errors import CorpusError
from corpuscore.storage import Entry, path_of, scheme_of

_STATE, _INFO, _README = "state.json", "dataset_info.json", "README.md"
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
#: Files of a repository that are none of its data.
_BESIDE = re.compile(
    r"(?:^|/)(?:[^/]*\.(?:md|py|png|jpg|svg|pdf|yaml|yml)|LICENSE[^/]*|dataset_infos?\.json)$", re.IGNORECASE
)


def dataset_entries(folder: str, entries: Sequence[Entry], anonymous: bool) -> list[Entry]:
    """The data files among all that is in a folder; all of them where it is no data set.

    Args:
        folder: Canonical URI, with a slash at its end.
        entries: What was listed there, without hidden names.
        anonymous: Without credentials.

    Raises:
        CorpusError: A description cannot be read, or names files that are not there.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    found = paths_below(path_of(folder), entries)
    saved = [path.removesuffix(_STATE) for path in found if _is_state(path, found)]
    if saved:
        described = [_named(folder, base, found, anonymous) for base in saved]
        return [found[path] for paths in described for path in paths]
    head = _head(folder, found, anonymous)
    if head is None:
        return list(entries)
    data = {path: entry for path, entry in found.items() if not _BESIDE.search(path)}
    chosen = _configured(folder, head, list(data))
    return [entry for path, entry in data.items() if chosen is None or path in chosen]


def _is_state(path: str, found: dict[str, Entry]) -> bool:
    return path.rpartition("/")[2] == _STATE and path.removesuffix(_STATE) + _INFO in found


def _named(folder: str, base: str, found: dict[str, Entry], anonymous: bool) -> Iterator[str]:
    """The files that a saved data set's state.json names."""
    uri = folder + base + _STATE
    try:
        state = json.loads(read_small(uri, found[base + _STATE], anonymous))
        names = [base + item["filename"] for item in state["_data_files"]]
    except (ValueError, LookupError, TypeError) as error:
        raise _unreadable(uri, error) from None
    for name in names:
        if name not in found:
            raise _unreadable(uri, f"it names {name}, which is not there")
        yield name


def _head(folder: str, found: dict[str, Entry], anonymous: bool) -> dict[str, Any] | None:
    """What the head of a repository's README.md says; None where the folder is no repository of a data set."""
    import yaml

    is_hub = scheme_of(folder) == "hf"
    if _README not in found:
        return {} if is_hub else None
    uri = folder + _README
    matched = _HEAD.match(read_small(uri, found[_README], anonymous).decode(errors="replace").replace("\r\n", "\n"))
    try:
        head = yaml.safe_load(matched[1]) if matched else None
    except yaml.YAMLError as error:
        raise _unreadable(uri, error) from None
    if not isinstance(head, dict):
        return {} if is_hub else None
    return head if is_hub or head.keys() & {"configs", "dataset_info"} else None


def _configured(folder: str, head: dict[str, Any], paths: Sequence[str]) -> set[str] | None:
    """The data files of the default configuration; None where the head names no files."""
    configs = [one for one in head.get("configs") or () if isinstance(one, dict) and one.get("data_files")]
    if not configs:
        return None
    named = [one for one in configs if one.get("default") or one.get("config_name", "default") == "default"]
    if not named and len(configs) > 1:
        names = ", ".join(str(one.get("config_name")) for one in configs)
        raise CorpusError(
            f"{folder} has the configurations {names}, none of them the default",
            rule="of a data set its default configuration is read",
            next_step="name the files of one of them by a pattern, as its README.md does",
        )
    chosen = (named or configs)[0]
    patterns = list(_patterns(chosen["data_files"]))
    matches = matcher(one for pattern in patterns for one in alternatives(pattern))
    found = {path for path in paths if matches(path)}
    if not found:
        raise _unreadable(folder + _README, f"its patterns {', '.join(patterns)} match no file")
    return found


def _patterns(data_files: Any) -> Iterable[str]:
    """The patterns in all the forms that the hub takes: one, a list, by split, or a list of splits with paths."""
    if isinstance(data_files, str):
        yield data_files
    elif isinstance(data_files, dict):
        for value in [data_files["path"]] if "path" in data_files else data_files.values():
            yield from _patterns(value)
    elif isinstance(data_files, list):
        for value in data_files:
            yield from _patterns(value)


def _unreadable(uri: str, reason: object) -> CorpusError:
    return CorpusError(
        f"{uri} cannot be read: {' '.join(str(reason).split())[:300]}",
        rule="it says which files a data set has",
        next_step="save the data set again, or name its files by a pattern",
    )
