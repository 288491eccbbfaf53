"""Checks between scoring and loading: what receipts promise and what parts hold becomes findings, which are data.

    partitions + receipts + parts -> validate -> findings, and the exact list of parts that load may take

inspection.py  one part, batch by batch: counts, sums and problems
duplicates.py  repeated document ids in bounded memory
checks.py      what the whole run must hold
"""

from corpuscore.validation.validate import Validation, validate

__all__ = ["Validation", "validate"]
