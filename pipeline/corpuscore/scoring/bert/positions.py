"""Positions of packed tokens, each document's anew, as transformers counts them. No torch.

Shape suffix: T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Model types whose positions start behind the padding id.
_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")


def padding_before(config: Mapping[str, Any]) -> int | None:
    """Id of the padding token, where positions start behind it; 1 where the config leaves it out. Else None.

    Args:
        config: What config.json says.
    """
    if config.get("model_type") not in _OFFSET:
        return None
    said = config.get("pad_token_id")
    return 1 if said is None or config["model_type"] == "mpnet" else int(said)  # MPNet's code has 1, whatever it says


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """As many as there are positions; RoBERTa's first ones, up to the padding id, are no token's.

    Args:
        config: What config.json says.
    """
    places, padding = config.get("max_position_embeddings"), padding_before(config)
    return places if places is None or padding is None else int(places) - padding - 1


def positions(
    ids_T: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], padding: int | None
) -> npt.NDArray[np.int64]:
    """Position of each token in its document, int64 [T].

    RoBERTa counts from padding + 1, and gives a padding token inside a text (someone wrote `<pad>`) padding itself.

    Args:
        ids_T: Token ids.
        offsets: int64 [S + 1] where documents begin and end.
        padding: What `padding_before` says.

    Source: create_position_ids_from_input_ids in transformers' modeling_roberta.py
    """
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    if padding is None:
        return np.arange(len(ids_T)) - starts
    real = ids_T != padding
    counted = np.concatenate([[0], np.cumsum(real)])
    return np.where(real, counted[1:] - counted[starts], 0) + padding
