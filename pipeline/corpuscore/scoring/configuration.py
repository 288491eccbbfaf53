"""A checkpoint's JSON files, read as what they are: anybody's. What is not as it should be is a ModelError.

Everything that is computed from a config later (labels, sizes, kinds) is checked here, once, for type and bounds, so
that nobody else meets a name that is a list, or a thousand million layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpuscore.errors import ModelError

CONFIG_BYTES = 16 * 2**20
TOKENIZER_BYTES = 256 * 2**20
MOST_LABELS = 10_000
MOST_LAYERS = 1_000
_LARGEST = 2**31 - 1

_TEXTS = ("model_type", "problem_type", "position_embedding_type", "hidden_act", "activation", "activation_function",
          "hidden_activation", "classifier_pooling", "pooling")  # fmt: skip
_FLAGS = ("is_decoder", "tie_word_embeddings", "bidirectional", "layer_norm", "normalize_after", "attn_layer_norm",
          "rescale")  # fmt: skip
_NUMBERS = ("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "initializer_range", "highway_bias", "dropout",
            "attn_dropout", "head_dropout")  # fmt: skip
#: Sizes that are computed with here; the least that each may be, where that is not 1.
_SIZES = ("vocab_size", "n_words", "max_position_embeddings", "n_positions", "max_seq_len", "hidden_size", "dim",
          "embedding_size", "intermediate_size", "hidden_dim", "num_attention_heads", "n_heads", "num_hidden_layers",
          "n_layers", "proj_size", "num_layers", "num_heads", "num_hidden_groups", "inner_group_num", "type_vocab_size",
          "attention_every_n_layers",
          "attention_last_n_layers")  # fmt: skip
_LEAST = {"type_vocab_size": 0, "attention_last_n_layers": -1}
#: Names of other sizes, which are only bounded, and of those that count parts which are built one by one.
_COUNTS = re.compile(r"(size|layers?|heads?|experts|positions|embeddings|dim|embd|inner|d_model|d_ff)$")
_PARTS = re.compile(r"(layers?|experts)$")


def read_json(path: Path, model: str, limit: int = CONFIG_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        model: Name for messages.
        limit: Bytes that it may have.

    Raises:
        ModelError: It cannot be read, is too large or too deep, or holds no object.
    """
    try:
        if path.stat().st_size > limit or not path.is_file():
            raise ModelError(
                f"Model {model}: {path.name} is no file of at most {limit} bytes", next_step="save the model again"
            )
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"Model {model}: {path.name} is not JSON that can be read ({type(error).__name__}: {str(error)[:200]})",
            next_step="copy it again",
        ) from None
    if not isinstance(value, dict):
        raise ModelError(f"Model {model}: {path.name} holds no object", next_step="copy it again")
    return value


def check_config(config: Mapping[str, Any], model: str) -> None:
    """Make sure that what is used of a config has its type, and sizes their bounds.

    Raises:
        ModelError: Naming the first entry that has not.
    """
    for name, value in config.items():
        if value is not None and (rule := _broken_rule(name, value)):
            raise ModelError(
                f"Model {model}: {name[:60]} in config.json is {repr(value)[:100]}",
                rule=rule,
                next_step="correct it, or save the model again",
            )


def embedding_rows(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model knows; None where its config.json does not say."""
    text = config.get("text_config")
    said = config.get("vocab_size", config.get("n_words", text.get("vocab_size") if isinstance(text, dict) else None))
    return said if type(said) is int else None


def labels_by_id(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `id2label` says, also where it lists the labels in their order; empty where it says nothing."""
    named = config.get("id2label") or {}
    return {str(index): label for index, label in enumerate(named)} if isinstance(named, list) else dict(named)


def _broken_rule(name: str, value: Any) -> str:
    """What an entry should be and is not; empty where it is."""
    if name in _TEXTS:
        return "" if isinstance(value, str) else "it is a name"
    if name in _FLAGS:
        return "" if isinstance(value, bool) else "it is true or false"
    if name in _NUMBERS:
        return "" if _is_number(value) else "it is a number"
    if name == "architectures":
        return "" if isinstance(value, list) and all(isinstance(item, str) for item in value) else "it lists names"
    if name == "id2label":
        return "" if isinstance(value, (dict, list)) else "it is an object, or lists the labels in their order"
    if name == "auto_map":
        return "" if isinstance(value, dict) else "it is an object"
    if name == "num_labels":
        return "" if _is_count(value, MOST_LABELS) and value > 0 else f"it is between 1 and {MOST_LABELS}"
    if name == "pad_token_id":
        return "" if _is_count(value, _LARGEST) else f"it is a token's id, at most {_LARGEST}"
    least, most = _LEAST.get(name, 1), MOST_LAYERS if _PARTS.search(name) else _LARGEST
    if name in _SIZES:
        return "" if _is_count(value, most) and value >= least else f"it is a whole number between {least} and {most}"
    bounded = _COUNTS.search(name) is None or type(value) is not int or abs(value) <= most
    return "" if bounded else f"such a number is at most {most}"


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and -1 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
