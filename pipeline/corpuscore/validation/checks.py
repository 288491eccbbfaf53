"""What the whole run must hold, from the totals of its parts. Each check returns its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.oddities import Oddity, message_of
from corpuscore.records import NOT_FINITE, TELLING_TEXTS, Finding, Partition, Receipt
from corpuscore.validation.duplicates import Duplicates

#: Documents without a finite score: beyond both, it is the model that is broken rather than a document.
_NOT_FINITE_DOCUMENTS = 10
_NOT_FINITE_SHARE = 0.01
#: A label mean that moved by this much, and beyond chance, is worth a look; of fewer documents chance is not known.
_DRIFT = 0.05
_DRIFT_FROM_DOCUMENTS = 100
_DRIFT_STANDARD_ERRORS = 5.0
_EXAMPLES = 3

#: Checks whose problems go away when the work is scored again.
DAMAGE = frozenset({"damaged", "object", "part", "schema", "labels", "counts"})

#: Rule and next step by check, for problems of single partitions and parts.
_RULES = {
    "receipt": ("every partition has a receipt", "run the score stage again: it scores only what is missing"),
    "damaged": ("a receipt holds what was written", "rerun: the work of damaged receipts is done again"),
    "object": ("a work id's receipt is for its object version", "rerun: the work of damaged receipts is done again"),
    "part": ("a receipt's part is there, with the digest that it names", "rerun: damaged parts are scored again"),
    "schema": ("a part has the columns of records.part_schema", "rerun with one version of corpuscore everywhere"),
    "labels": ("labels stand in the scorer's order", "rerun with one checkpoint on all workers"),
    "counts": ("manifest, receipt and part agree on the rows", "rerun: damaged parts are scored again"),
    "ids": ("every document has an id", "name other --id-column, or none"),
    "finite": ("scores are numbers", "try --precision fp32; if they stay, the checkpoint is damaged"),
    "range": ("scores are probabilities", "check the checkpoint's problem_type"),
    "softmax": ("softmax probabilities sum to 1", "check the checkpoint's problem_type, or try --precision fp32"),
    "kept": (
        "kept columns have types of which one holds the values of all objects",
        "make the types equal in the corpus, or do not keep it",
    ),
}


def finding_of(check: str, problems: Sequence[str]) -> Finding:
    """One error for all problems of a check, with the first few of them."""
    rule, next_step = _RULES[check]
    shown = "; ".join(problem.rstrip(".") for problem in problems[:_EXAMPLES])
    more = f" (and {len(problems) - _EXAMPLES} more)" if len(problems) > _EXAMPLES else ""
    values = {"problems": len(problems), "examples": list(problems[:_EXAMPLES])}
    return Finding(check, "error", f"{shown}{more}. Rule: {rule}. Next: {next_step}.", values)


def receipt_problem(
    partition: Partition, work_id: str, receipt: Receipt | None, damage: str | None = None
) -> tuple[str, str] | None:
    """What is wrong with a partition's receipt before its part is read: (check, problem)."""
    if damage:
        return "damaged", damage
    where = f"{partition.uri} [{partition.kind} {partition.start}:{partition.stop}]"
    if receipt is None:
        return "receipt", f"{where} (work id {work_id}) has no receipt"
    if (receipt.uri, receipt.etag) != (partition.uri, partition.etag):
        return "object", f"The receipt of {where} is for {receipt.uri} {receipt.etag}, planned was {partition.etag}"
    if receipt.work_id != work_id:
        return "object", f"The receipt of {where} is for the work id {receipt.work_id}, planned was {work_id}"
    if partition.rows is not None and partition.rows != receipt.rows:
        return "counts", f"{where} has {partition.rows} rows by its footer, its receipt says {receipt.rows}"
    if receipt.scored + receipt.rejected != receipt.rows:
        return "counts", f"The receipt of {where} says {receipt.scored} + {receipt.rejected} of {receipt.rows} rows"
    if receipt.lines is not None and receipt.lines != receipt.rows + sum(receipt.other_lines.values()):
        others = ", ".join(f"{count} {name}" for name, count in receipt.other_lines.items()) or "none"
        return (
            "counts",
            f"{where} has {receipt.lines} lines, of which its receipt says {receipt.rows} rows (others: {others})",
        )
    return None


def check_oddities(found: Mapping[str, Oddity]) -> list[Finding]:
    """What readers found odd about the corpus, a warning for each kind."""
    return [
        Finding(kind, "warning", message_of(kind, oddity), {"count": oddity.count, "example": oddity.example})
        for kind, oddity in sorted(found.items())
    ]


def check_rejects(
    rows: int, rejected: int, reasons: Mapping[str, int], allowed: float, examples: Sequence[str] = ()
) -> list[Finding]:
    """Rejects under the threshold, and something scored at all.

    Args:
        rows, rejected: Documents.
        reasons: Rejects by reason.
        allowed: Share of documents that may be rejects.
        examples: A few of them, with object and position.
    """
    if not rows:
        return [Finding("scored", "warning", "The corpus has no documents. Next: check the corpus and its format.")]
    top = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:5]
    named = ", ".join(f"{reason}: {count}" for reason, count in top) or "no reasons given"
    values = {"rows": rows, "rejected": rejected, "allowed": allowed, "reasons": dict(top), "examples": list(examples)}
    if rejected > allowed * rows:
        message = (
            f"{rejected} of {rows} documents ({rejected / rows:.2%}) are rejects ({named}). "
            f"Rule: {allowed:.2%} at the most. {_such_as(examples)}"
            "Next: mend the corpus (`corpuscore rejects RUN` lists them all), or raise --max-reject-fraction."
        )
        return [Finding("rejects", "error", message, values)]
    if rejected == rows:
        return [Finding("scored", "warning", f"None of {rows} documents could be scored ({named}).", values)]
    if rejected:
        message = f"{rejected} of {rows} documents ({rejected / rows:.2%}) are rejects ({named})."
        return [Finding("rejects", "info", message, values)]
    return []


def _such_as(examples: Sequence[str]) -> str:
    return f"Such as: {', '.join(examples)}. " if examples else ""


def check_not_finite(rows: int, rejected: int, reasons: Mapping[str, int]) -> list[Finding]:
    """Documents that are rejects since their scores are no numbers: few are the documents', many are the model's."""
    found = reasons.get(NOT_FINITE, 0)
    others = rejected - found
    if not found or (found <= max(_NOT_FINITE_DOCUMENTS, _NOT_FINITE_SHARE * rows) and found < rows - others):
        return []
    message = (
        f"{found} of {rows - others} documents with a text have scores that are NaN or infinite. Rule: a model that "
        f"cannot score more than {_NOT_FINITE_SHARE:.0%} of its documents (and more than {_NOT_FINITE_DOCUMENTS}), or "
        "none of them, is not loaded. Next: try --precision fp32; if they stay, the checkpoint is damaged."
    )
    return [Finding("finite", "error", message, {"not_finite": found, "rows": rows})]


def check_duplicates(found: Duplicates, rows: int) -> list[Finding]:
    """Ids that repeat: reported, and kept."""
    if not found.count:
        return []
    about = "" if found.exact else "About "
    message = (
        f"{about}{found.count} of {rows} documents repeat the id of another one. They are kept. "
        "Next: name more --id-column, so that an id is one document's."
    )
    return [Finding("duplicates", "warning", message, {"duplicates": found.count, "exact": found.exact, "rows": rows})]


def check_constant(
    labels: Sequence[str], low_L: npt.NDArray[np.float32], high_L: npt.NDArray[np.float32], unique_texts: int
) -> list[Finding]:
    """Scores that never change, over enough different texts to tell: of all labels an error, of some a warning.

    Args:
        labels: Names (L).
        low_L, high_L: Extremes of each label's scores.
        unique_texts: Different texts that were scored, at the least.
    """
    if unique_texts < TELLING_TEXTS:
        return []
    constant = [label for label, low, high in zip(labels, low_L, high_L, strict=True) if high <= low]
    if not constant:
        return []
    values = {"labels": constant, "unique_texts": unique_texts}
    if len(constant) == len(labels):
        message = (
            f"{unique_texts} different texts, and all that were scored, have the same scores. "
            "Rule: a model tells texts apart. Next: check the checkpoint; its classifier may never have been trained."
        )
        return [Finding("constant", "error", message, values)]
    named = ", ".join(constant[:_EXAMPLES]) + (" ..." if len(constant) > _EXAMPLES else "")
    message = (
        f"{len(constant)} of {len(labels)} labels have one score for all of {unique_texts} different texts: {named}."
    )
    return [Finding("constant", "warning", message, values)]


def check_drift(
    previous: Mapping[str, float], means: Mapping[str, float], standard_errors: Mapping[str, float], documents: int
) -> list[Finding]:
    """How the label means moved against the previous run of the same model."""
    moved = {label: means[label] - previous[label] for label in means if label in previous}
    if not moved:
        return []
    far = {
        label: by
        for label, by in moved.items()
        if documents >= _DRIFT_FROM_DOCUMENTS and abs(by) > max(_DRIFT, _DRIFT_STANDARD_ERRORS * standard_errors[label])
    }
    largest = sorted(far or moved, key=lambda label: -abs(moved[label]))[:_EXAMPLES]
    named = ", ".join(f"{label} {previous[label]:.3f} to {means[label]:.3f}" for label in largest)
    values = {"moved": {label: round(moved[label], 6) for label in largest}, "labels": len(far)}
    if far:
        message = (
            f"The means of {len(far)} labels moved by more than {_DRIFT} since the previous run: {named}. "
            "Next: look whether the corpus changed; the model is the same."
        )
        return [Finding("drift", "warning", message, values)]
    return [Finding("drift", "info", f"The label means that moved the most since the previous run: {named}.", values)]
