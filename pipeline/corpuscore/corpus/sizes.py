"""How many bytes each row of an Arrow column holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.kinds import is_list, is_text

Sizes = npt.NDArray[np.int64]

_NUMBER_BYTES = 8


def sizes_of(values: pa.Array) -> Sizes:
    """Bytes of each row, nested values and repeated ones included."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return sizes_of(values.storage)
    if isinstance(values, pa.DictionaryArray):
        chosen = np.append(sizes_of(values.dictionary), 0)
        places = values.indices.fill_null(len(chosen) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(chosen[places], np.int64)
    if isinstance(values, pa.RunEndEncodedArray):
        return sizes_of(pc.run_end_decode(values))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return sizes_of(values.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()))
    if is_text(kind):
        lengths: Sizes = np.asarray(pc.fill_null(pc.binary_length(values), 0), np.int64)
        return lengths
    if pa.types.is_struct(kind):
        return sum((sizes_of(values.field(at)) for at in range(kind.num_fields)), np.zeros(len(values), np.int64))
    if is_list(kind) or pa.types.is_map(kind):
        return _sizes_of_lists(values)
    width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else _NUMBER_BYTES
    return np.full(len(values), width, np.int64)


def _sizes_of_lists(values: pa.Array) -> Sizes:
    entries, lengths = entries_of(values)
    until = np.concatenate([[0], np.cumsum(sizes_of(entries) + _NUMBER_BYTES)])
    sizes: Sizes = np.diff(until[np.concatenate([[0], np.cumsum(lengths)])])
    return sizes


def entries_of(values: pa.Array) -> tuple[pa.Array, Sizes]:
    """What lists hold, one after the other, and how many each row holds, null rows none; of maps, structs of both."""
    if pa.types.is_map(values.type):
        values = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    return values.flatten(), np.asarray(pc.fill_null(pc.list_value_length(values), 0), np.int64)
