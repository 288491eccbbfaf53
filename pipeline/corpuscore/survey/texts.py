"""What sampled texts are like: lengths, scripts, doubles, and signs of damage."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from corpuscore.records import Finding
from corpuscore.survey.samples import Sample

_LETTERS = 400  # of each text, for its scripts
_MOST_SCRIPTS = 6
#: UTF-8 that was read as Latin-1 and written as UTF-8 again, and characters that stand for lost ones.
_DOUBLY_ENCODED = re.compile("[ÂÃ][\u0080-\u00bf]|â\u0080[\u0080-\u00bf]|â€[\u0152-\u2122]")
_MARKUP = re.compile(r"</?(?:p|br|div|span|a|li|td)\b[^>]*>|&(?:amp|nbsp|lt|gt|quot|#\d+);", re.IGNORECASE)
_NOTABLE = 0.01  # share of texts from which an oddity is told


def look_at_texts(samples: Sequence[Sample], max_reject_fraction: float) -> Iterator[Finding | tuple[str, Any]]:
    """Facts and findings about the sampled documents.

    Args:
        samples: What was read.
        max_reject_fraction: Share of rejects from which a load is stopped.
    """
    texts = [text for sample in samples for text in sample.texts]
    yield from _rejects(samples, len(texts), max_reject_fraction)
    yield from _doubles(samples, texts)
    if not texts:
        return
    lengths = sorted(map(len, texts))
    median, high = lengths[len(lengths) // 2], lengths[len(lengths) * 95 // 100]
    yield "characters", f"median {median:,}, 95 % up to {high:,}, longest {lengths[-1]:,}"
    yield "scripts", _scripts(texts)
    yield from _damage(texts)


def _rejects(samples: Sequence[Sample], scored: int, most: float) -> Iterator[Finding | tuple[str, Any]]:
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for sample in samples:
        reasons.update(sample.reasons)
        examples = {**sample.examples, **examples}
    rejected = sum(reasons.values())
    share = rejected / max(1, rejected + scored)
    for reason, count in reasons.most_common():
        message = f"{count:,} documents cannot be scored ({reason}), such as {examples[reason]}"
        yield Finding("rejects", "warning", message, {"reason": reason, "documents": count})
    if share > most:
        exact = all(sample.whole for sample in samples)
        message = (
            f"{share:.1%} of the documents looked at are rejects. Rule: --max-reject-fraction {most:g} stops the load. "
            "Next: mend them, choose other columns, or raise it."
        )
        yield Finding("reject_fraction", "error" if exact else "warning", message, {"fraction": share})


def _doubles(samples: Sequence[Sample], texts: list[str]) -> Iterator[Finding]:
    ids = Counter(document_id for sample in samples for document_id in sample.ids)
    twice = [document_id for document_id, count in ids.items() if count > 1]
    if twice:
        message = (
            f"{len(twice):,} document ids occur more than once, such as {twice[0][:100]!r}: a table holds a row for "
            "each, and nothing tells them apart. Next: add id columns, or leave them out."
        )
        yield Finding("duplicate_ids", "warning", message, {"ids": len(twice)})
    repeated = len(texts) - len(set(texts))
    if repeated > _NOTABLE * len(texts):
        message = f"{repeated / len(texts):.1%} of the texts are copies of others; within a partition these are free."
        yield Finding("duplicate_texts", "info", message, {"texts": repeated})


def _damage(texts: list[str]) -> Iterator[Finding]:
    for check, level, found, what in (
        ("lost_characters", "warning", lambda text: "\ufffd" in text, "have U+FFFD in place of lost characters"),
        ("wrong_encoding", "warning", _DOUBLY_ENCODED.search, "look encoded twice (such as Ã© for é)"),
        ("control_characters", "warning", _has_controls, "have control characters"),
        ("markup", "info", _MARKUP.search, "have HTML tags or entities"),
    ):
        odd = [text for text in texts if found(text)]
        if len(odd) > _NOTABLE * len(texts) or (odd and check == "wrong_encoding"):
            message = f"{len(odd):,} of {len(texts):,} texts {what}, such as {odd[0][:60]!r}"
            yield Finding(check, level, message, {"texts": len(odd)})  # type: ignore[arg-type]


def _has_controls(text: str) -> bool:
    return any(letter < " " and letter not in "\t\n\r\f" for letter in text)


def _scripts(texts: list[str]) -> dict[str, float]:
    """Share of letters by script, largest first."""
    letters = Counter(letter for text in texts for letter in text[:_LETTERS] if letter.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[_script(letter)] += count
    every = max(1, letters.total())
    return {script: round(count / every, 4) for script, count in scripts.most_common(_MOST_SCRIPTS)}


@lru_cache(maxsize=2**16)
def _script(letter: str) -> str:
    """Of a letter, as the first word of its Unicode name says: LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0].title().replace("Cjk", "CJK")
