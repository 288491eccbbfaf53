"""Receipts in the work location: written sealed, read with care, since a part counts by them alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from corpuscore.errors import DamagedDocument
from corpuscore.records import Receipt, is_part_of, receipt_key
from corpuscore.storage import Store, read_document, read_documents, sealed

log = logging.getLogger(__name__)

_RECEIPT = TypeAdapter(Receipt)


@dataclass(frozen=True, slots=True)
class Receipts:
    """What was read of the receipts of some work ids.

    Attributes:
        found: Those that are there, by work id.
        damaged: What is wrong with the others that are there, by work id.
    """

    found: dict[str, Receipt]
    damaged: dict[str, str]


def sealed_receipt(receipt: Receipt) -> bytes:
    """The bytes of a receipt under the key of its work id."""
    return sealed(receipt_key(receipt.work_id), receipt.to_json())


def read_receipt(store: Store, work_id: str) -> Receipt | None:
    """The receipt of a work id that counts, or None: where there is none, or its part is gone, or it is damaged.

    A damaged one is withdrawn, since it would stand in the way of the next.
    """
    key = receipt_key(work_id)
    try:
        receipt = read_document(store, key, partial(_receipt, work_id))
    except DamagedDocument as error:
        log.warning("%s. The receipt is withdrawn, and the work is done again.", error.value)
        store.delete([key])
        return None
    return receipt if receipt and store.exists(receipt.part) else None


def read_receipts(store: Store, work_ids: Sequence[str]) -> Receipts:
    """The receipts of many work ids, whether or not their parts are there; none is listed, so no listing can be old."""
    keys = {receipt_key(work_id): work_id for work_id in work_ids}
    found, damaged = read_documents(store, {key: partial(_receipt, work_id) for key, work_id in keys.items()})
    return Receipts(
        found={keys[key]: receipt for key, receipt in found.items()},
        damaged={keys[key]: error.value for key, error in damaged.items()},
    )


def _receipt(work_id: str, content: Any) -> Receipt:
    receipt = _RECEIPT.validate_python(content)
    if receipt.work_id != work_id:
        raise ValueError(f"it is the receipt of {receipt.work_id}")
    if not is_part_of(receipt.part, work_id):
        raise ValueError(f"it names {receipt.part}, which is no part of this work")
    return receipt
