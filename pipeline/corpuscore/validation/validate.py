"""Validate a run: every partition's receipt, every part that is not loaded yet, then the run as a whole."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from corpuscore.kinds import widened
from corpuscore.oddities import summed
from corpuscore.parts import OpenPart
from corpuscore.records import TELLING_TEXTS, CheckedPart, Finding, LongDocuments, Partition, Receipt, ScorerInfo
from corpuscore.validation.checks import (
    DAMAGE,
    check_constant,
    check_drift,
    check_duplicates,
    check_not_finite,
    check_oddities,
    check_rejects,
    finding_of,
    receipt_problem,
)
from corpuscore.validation.duplicates import IdSketch
from corpuscore.validation.inspection import Facts, LabelStats, SumRule, inspect_part

#: Sums of softmax rows: float32 adds up to 1 within rounding; half precisions have 8 to 11 bits a score.
_TOLERANCE = {"fp32": 1e-3}
_LOW_PRECISION_TOLERANCE = 2e-2

#: Rejects of a run that are named, as examples of all.
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Validation:
    """What validation found.

    Attributes:
        findings: Errors first, then warnings, then facts.
        parts: Exactly what was checked, in manifest order; load takes these and no others.
        kept: Schema of the kept columns, widened to hold the values of all parts; None where no part was read.
        label_means: Over the documents of the parts that were read, in label order; empty where there are none.
        score_bins: Of the same documents, by score in SCORE_BINS equal bins from 0 to 1, for each label.
        token_bins: Of the same documents, by tokens: up to each of TOKEN_EDGES, and beyond.
        damaged: Work ids whose receipt is damaged, or whose part is missing, damaged or contradicts its receipt: to be
            scored again.
        checked: Parts that were read; those that the warehouse has already were not.
        rows, scored, rejected, truncated: Of the whole run, by its receipts.
        reasons: Rejects by reason, of the whole run.
    """

    findings: tuple[Finding, ...]
    parts: tuple[CheckedPart, ...]
    kept: pa.Schema | None
    label_means: dict[str, float]
    score_bins: dict[str, list[int]]
    token_bins: list[int]
    damaged: tuple[str, ...]
    checked: int
    rows: int
    scored: int
    rejected: int
    truncated: int
    reasons: dict[str, int]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the load."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def validate(
    partitions: Iterable[tuple[Partition, str]],
    receipts: Mapping[str, Receipt],
    scorer: ScorerInfo,
    open_part: OpenPart,
    *,
    max_reject_fraction: float,
    long_documents: LongDocuments = "truncate",
    previous_means: Mapping[str, float] | None = None,
    loaded: Mapping[str, str] | None = None,
    unreadable: Mapping[str, str] | None = None,
    threads: int = 4,
) -> Validation:
    """Check a run before it is loaded. Bad data is a finding; memory is bounded by `threads` batches and the id sketch.

    Args:
        partitions: What the manifest expects, with work ids.
        receipts: Those that are there, by work id.
        scorer: Labels, activation and precision that were planned.
        open_part: Opens a part by the name in its receipt.
        max_reject_fraction: Share of rejects above which the load stops.
        long_documents: How windows were pooled; probabilities pooled by `max` sum to 1 or more.
        previous_means: Label means of the model's previous run.
        loaded: The warehouse's ledger, digest by work id; parts that it has are not read again.
        unreadable: What is wrong with receipts that are damaged, by work id.
        threads: Parts that are read at the same time.

    Raises:
        TransientError: The store did not answer; nothing can be said of the parts.
    """
    tally = _Tally(scorer.labels)
    sum_rule = _sum_rule(scorer, long_documents)
    accepted = tally.accept(partitions, receipts, unreadable or {})
    known = loaded or {}
    fresh = (receipt for receipt in accepted if known.get(receipt.work_id) != receipt.digest)
    with ThreadPoolExecutor(threads, thread_name_prefix="validate") as pool:
        for facts in _in_order(pool, fresh, threads, scorer, sum_rule, open_part):
            tally.add(facts)
    return tally.validation(accepted, max_reject_fraction, previous_means)


def _sum_rule(scorer: ScorerInfo, long_documents: str) -> SumRule | None:
    if scorer.activation != "softmax":
        return None
    tolerance = _TOLERANCE.get(scorer.precision, _LOW_PRECISION_TOLERANCE)
    return SumRule(1 - tolerance, np.inf if long_documents == "max" else 1 + tolerance)


def _in_order(
    pool: ThreadPoolExecutor,
    receipts: Iterable[Receipt],
    threads: int,
    scorer: ScorerInfo,
    sum_rule: SumRule | None,
    open_part: OpenPart,
) -> Iterator[Facts]:
    """Inspect parts in threads, a few ahead of the reader at the most."""
    ahead: deque[Future[Facts]] = deque()
    for receipt in receipts:
        ahead.append(pool.submit(inspect_part, receipt, scorer, sum_rule, open_part))
        if len(ahead) > 2 * threads:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


class _Tally:
    """Totals and problems of a run, filled receipt by receipt, then part by part."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._problems: dict[str, list[str]] = {}
        self._ids = IdSketch()
        self._stats = LabelStats.empty(len(labels))
        self._kept: tuple[str, pa.Schema] | None = None
        self._damaged: list[str] = []
        self._most_texts = 0
        self._text_hashes: set[str] = set()
        self._checked = 0
        self._examples: list[str] = []

    def accept(
        self,
        partitions: Iterable[tuple[Partition, str]],
        receipts: Mapping[str, Receipt],
        unreadable: Mapping[str, str],
    ) -> list[Receipt]:
        """The receipts that say what was planned; what the others say is a problem."""
        accepted = []
        for partition, work_id in partitions:
            receipt = receipts.get(work_id)
            if problem := receipt_problem(partition, work_id, receipt, unreadable.get(work_id)):
                self._problem(*problem)
                if problem[0] in DAMAGE:
                    self._damaged.append(work_id)
            elif receipt is not None:
                accepted.append(receipt)
        return accepted

    def _problem(self, check: str, text: str) -> None:
        self._problems.setdefault(check, []).append(text)

    def add(self, facts: Facts) -> None:
        """Count a part in."""
        self._checked += 1
        self._note_texts(facts.receipt)
        self._stats.add(facts.stats)
        self._examples = sorted([*self._examples, *facts.examples])[:_EXAMPLES]  # the same in whatever order
        for hashes in facts.hashes:
            self._ids.add(hashes)
        self._compare_kept(facts)
        for problem in facts.problems:
            self._problem(*problem)
        if any(check in DAMAGE for check, _ in facts.problems):
            self._damaged.append(facts.receipt.work_id)

    def _note_texts(self, receipt: Receipt) -> None:
        """Different texts of a part: small parts may all hold the same ones, so theirs are compared."""
        self._most_texts = max(self._most_texts, receipt.unique_texts)
        if len(self._text_hashes) < TELLING_TEXTS:
            self._text_hashes.update(receipt.text_hashes)

    @property
    def _different_texts(self) -> int:
        """Different texts among all parts, at the least; exact below TELLING_TEXTS."""
        return max(self._most_texts, len(self._text_hashes))

    def _compare_kept(self, facts: Facts) -> None:
        if facts.kept is None:
            return
        first_uri, first = self._kept or (facts.receipt.uri, facts.kept)
        both = list(map(widened, first.types, facts.kept.types)) if first.names == facts.kept.names else [None]
        if None in both:
            self._problem("kept", f"{facts.receipt.uri} has {_types(facts.kept)}; {first_uri} has {_types(first)}")
        else:
            self._kept = first_uri, pa.schema(list(zip(first.names, both, strict=True)))

    def validation(
        self, accepted: Sequence[Receipt], max_reject_fraction: float, previous_means: Mapping[str, float] | None
    ) -> Validation:
        """The result, with the checks of the run as a whole."""
        reasons: Counter[str] = Counter()
        for receipt in accepted:
            reasons.update(receipt.reasons)
        rows = sum(receipt.rows for receipt in accepted)
        rejected = sum(receipt.rejected for receipt in accepted)
        stats = self._stats
        means = dict(zip(self._labels, map(float, stats.means), strict=True)) if stats.documents else {}
        errors = dict(zip(self._labels, map(float, stats.standard_errors), strict=True))
        findings = [
            *(finding_of(check, problems) for check, problems in self._problems.items()),
            *check_rejects(rows, rejected, reasons, max_reject_fraction, self._examples),
            *check_oddities(summed(receipt.oddities for receipt in accepted)),
            *check_not_finite(rows, rejected, reasons),
            *check_constant(self._labels, stats.low_L, stats.high_L, self._different_texts if stats.documents else 0),
            *check_duplicates(self._ids.duplicates(), rows),
            *check_drift(previous_means or {}, means, errors, stats.documents),
        ]
        return Validation(
            findings=tuple(sorted(findings, key=lambda finding: _LEVELS.index(finding.level))),
            parts=tuple(map(_checked_part, accepted)),
            kept=self._kept[1] if self._kept else None,
            label_means=means,
            score_bins=dict(zip(self._labels, stats.scores_LB.tolist(), strict=True)) if stats.documents else {},
            token_bins=stats.tokens_B.tolist() if stats.documents else [],
            damaged=tuple(self._damaged),
            checked=self._checked,
            rows=rows,
            scored=sum(receipt.scored for receipt in accepted),
            rejected=rejected,
            truncated=sum(receipt.truncated for receipt in accepted),
            reasons=dict(reasons.most_common()),
        )


_LEVELS = ("error", "warning", "info")


def _checked_part(receipt: Receipt) -> CheckedPart:
    return CheckedPart(
        receipt.work_id, receipt.uri, receipt.part, receipt.digest, scored=receipt.scored, rejected=receipt.rejected
    )


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema) or "no kept columns"
