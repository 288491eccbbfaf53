"""What the table holds beside the scores, computed from them: the labels from a threshold on, and the strongest label.

Of all labels of the model, whether they have a column or not; in the type of the parts, before any narrower one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.options import TableOptions
from corpuscore.warehouse.tables import LISTED, score_type


def with_derived(rows: pa.RecordBatch, labels: Sequence[str], options: TableOptions) -> pa.RecordBatch:
    """Scored rows with the columns that the options ask for, and scores in the type that they name.

    Args:
        rows: Of a part, all scored.
        labels: Of the model, in the order of the part.
        options: Of the table.
    """
    added: dict[str, pa.Array] = {}
    if options.threshold is not None or options.top_label:
        scores_DL = np.stack([rows.column(label).to_numpy(zero_copy_only=False) for label in labels], axis=1)
        names = pa.array(labels, pa.string())
        if options.threshold is not None:
            added[LISTED] = _listed(scores_DL >= np.float32(options.threshold), names)
        if options.top_label:
            added["top_label"] = names.take(pa.array(scores_DL.argmax(axis=1)))
            added["top_score"] = pa.array(scores_DL.max(axis=1)).cast(score_type(options))
    for name, column in added.items():
        rows = rows.append_column(name, column)
    return rows if options.score_type == "float32" else _narrowed(rows, options.stored(labels), score_type(options))


def _listed(is_listed_DL: np.ndarray[tuple[int, int], np.dtype[np.bool_]], names: pa.Array) -> pa.Array:
    """A list of names for each row of the mask, in the order of its columns."""
    ends = np.concatenate([[0], np.cumsum(is_listed_DL.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), names.take(pa.array(np.nonzero(is_listed_DL)[1])))


def _narrowed(rows: pa.RecordBatch, labels: Sequence[str], kind: pa.DataType) -> pa.RecordBatch:
    columns = [
        pc.cast(column, kind) if name in labels else column
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)
