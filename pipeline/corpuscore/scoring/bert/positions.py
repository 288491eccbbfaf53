"""Positions of packed tokens, each document's anew, as transformers counts them. No torch.

Shape suffix: T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Model types whose positions start behind the padding id.
_OFFSET = frozenset((
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
))  # fmt: skip
#: What the number of positions is called, where it is not max_position_embeddings; others may say it and mean nothing.
_NAMES = {"ctrl": "n_positions", "gpt-sw3": "n_positions", "gpt2": "n_positions", "gpt_bigcode": "n_positions",
          "gptj": "n_positions", "openai-gpt": "n_positions", "mpt": "max_seq_len"}  # fmt: skip
#: As many positions has a model whose config.json leaves the number out, for those that cannot do with more.
_DEFAULTS = {
    "big_bird": 4096, "bigbird_pegasus": 4096, "bart": 1024, "biogpt": 1024, "canine": 16384, "ctrl": 256, "esm": 1026,
    "gpt-sw3": 1024, "gpt2": 1024, "gpt_bigcode": 1024, "gpt_neo": 2048, "gptj": 2048, "mbart": 1024, "mpt": 2048,
    "mvp": 1024, "nystromformer": 510, "opt": 2048, "perceiver": 2048, "plbart": 1024, "reformer": 4096,
    "roformer": 1536, "tapas": 1024, "xlm-roberta-xl": 514, "yoso": 4096,
} | dict.fromkeys((
    "albert", "bert", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra",
    "ernie", "flaubert", "fnet", "ibert", "layoutlm", "layoutlmv2", "layoutlmv3", "lilt", "longformer", "luke",
    "markuplm", "megatron-bert", "mobilebert", "mpnet", "mra", "openai-gpt", "rembert", "roberta",
    "roberta-prelayernorm", "roc_bert", "squeezebert", "xlm", "xlm-roberta", "xmod",
), 512)  # fmt: skip


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

    Where positions are turned or compared rather than looked up, it is what the config says that they were trained to,
    and None where it says nothing.

    Args:
        config: What config.json says.
    """
    kind = str(config.get("model_type"))
    text = config.get("text_config")
    named, padding = _NAMES.get(kind, "max_position_embeddings"), padding_before(config)
    places = config.get(named, text.get(named) if isinstance(text, dict) else None)
    places = _DEFAULTS.get(kind) if places is None else places
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
