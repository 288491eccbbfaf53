"""A model's limit of positions is known before it is loaded: so many tokens it takes, and not one more."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from corpuscore.scoring.bert import positions

PLACES = 20
#: Sizes of a tiny model, under all the names that they have; a config takes those that it does not know as they are.
SIZES: dict[str, Any] = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "intermediate_size"), 16)
    | dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "dff", "hidden_dim", "word_embed_proj_dim"), 16)
    | dict.fromkeys(("n_layer", "n_layers", "num_hidden_layers", "encoder_layers", "decoder_layers"), 1)
    | dict.fromkeys(
        ("n_head", "n_heads", "num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 2
    )
    | dict.fromkeys(("vocab_size", "n_words"), 40)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), PLACES)
    | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "attention_window": 4, "num_labels": 2}
    | {"entity_vocab_size": 4, "entity_emb_size": 4, "max_xpath_tag_unit_embeddings": 4, "max_depth": 2}
)
#: One of each way to number tokens.
TYPES = (
    "albert", "bart", "bert", "big_bird", "biogpt", "camembert", "canine", "ctrl", "data2vec-text", "deberta-v2",
    "distilbert", "electra", "esm", "flaubert", "fnet", "gpt2", "ibert", "longformer", "luke", "mpnet", "mpt", "mra",
    "nystromformer", "openai-gpt", "opt", "roberta", "roberta-prelayernorm", "roformer", "xlm",
    "xlm-roberta", "xlm-roberta-xl", "xmod", "yoso",
)  # fmt: skip


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.filterwarnings("ignore")
def test_as_many_tokens_as_the_model_takes(model_type: str) -> None:
    """The limit that is read from config.json works, and one token more fails."""
    config = transformers.AutoConfig.for_model(model_type, **SIZES)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    most = positions.max_tokens(json.loads(config.to_json_string(use_diff=False)))
    assert most is not None
    if hasattr(model, "set_default_language"):
        model.set_default_language("en_XX")
    with torch.no_grad():
        for length, fits in ((most, True), (most + 1, False)):
            ids = torch.tensor([[0, *[7] * (length - 2), 2]])
            try:
                model.eval()(input_ids=ids)
            except (IndexError, RuntimeError):
                assert not fits
            else:
                assert fits


@pytest.mark.filterwarnings("ignore")
def test_a_config_that_leaves_the_number_out() -> None:
    """Then it is what transformers takes, for every type that cannot do with more, and for no other."""
    for model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        whole = transformers.AutoConfig.for_model(model_type).to_dict()
        name = positions._NAMES.get(model_type, "max_position_embeddings")
        said = positions._DEFAULTS.get(model_type)
        assert said is None or said == whole[name], model_type
        offset = positions.padding_before({"model_type": model_type, "pad_token_id": whole.get("pad_token_id")})
        expected = None if said is None else said - (0 if offset is None else offset + 1)
        assert positions.max_tokens({"model_type": model_type, "pad_token_id": whole.get("pad_token_id")}) == expected


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "bloom", "seq_length": 2048}, None),
        ({"model_type": "gpt2", "n_positions": 32, "n_ctx": 1024}, 32),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 64}}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": -1}, 514),
        ({"model_type": "modernbert", "max_position_embeddings": 8192}, 8192),
        ({"model_type": "of tomorrow"}, None),
    ],
)
def test_what_configs_say(config: dict[str, Any], most: int | None) -> None:
    """Numbers that a type does not use mean nothing."""
    assert positions.max_tokens(config) == most
