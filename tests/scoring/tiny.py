"""A tiny random checkpoint of any model type that transformers classifies texts with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.scoring.checkpoints import SAMPLE, bytelevel

#: Sizes, and the names that configs give them; each config takes those that it has.
_NAMES: dict[Any, str] = {
    32: "hidden_size dim d_model n_embd emb_dim word_embed_proj_dim d_latents",
    40: "intermediate_size hidden_dim d_ff ffn_dim n_inner dff d_inner inner_dim encoder_ffn_dim decoder_ffn_dim "
    "ffn_hidden_size entity_vocab_size",
    2: "num_hidden_layers n_layers n_layer num_layers num_decoder_layers depth encoder_layers decoder_layers "
    "num_self_attends_per_block num_experts_per_tok linear_num_key_heads n_mamba_heads",
    4: "num_attention_heads n_heads n_head num_heads encoder_attention_heads decoder_attention_heads mamba_n_heads "
    "num_key_value_heads linear_num_value_heads num_experts num_local_experts n_routed_experts",
    8: "head_dim d_kv d_head qk_rope_head_dim qk_nope_head_dim v_head_dim q_lora_rank kv_lora_rank rotary_dim "
    "linear_key_head_dim linear_value_head_dim num_latents sliding_window attention_window entity_emb_size "
    "mamba_d_state",
    16: "moe_intermediate_size shared_expert_intermediate_size embedding_size mamba_headdim",
    66: "max_position_embeddings n_positions n_ctx max_seq_len",
    1: "n_group topk_group first_k_dense_replace num_conv_layers",
    0.3: "initializer_range init_std embed_init_std",
    28: "image_size",
    14: "patch_size",
}
_SIZES = {name: size for size, names in _NAMES.items() for name in names.split()} | {"initializer_factor": 1.0}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
#: What single types want besides.
_MORE: dict[str, dict[str, Any]] = {
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 48},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "esm": {"pad_token_id": 1, "mask_token_id": 3},
    "squeezebert": {"embedding_size": 32},
    "qwen3_5": {"layer_types": ["linear_attention", "full_attention"]},
    "t5": {"decoder_start_token_id": 1},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"]},
    "nystromformer": {"segment_means_seq_len": 64, "num_landmarks": 64},
    "reformer": {
        "attn_layers": ["local", "local"], "axial_pos_embds": False, "attention_head_size": 8, "is_decoder": False,
    },
    "t5gemma": {"is_encoder_decoder": False},
}  # fmt: skip


def write_tiny(folder: Path, model_type: str, **config: Any) -> Path:
    """Save a random classifier of three labels, with a tokenizer that any pipeline loads, and return its folder."""
    tokenizer = bytelevel()
    built = tiny_config(model_type, vocab_size=tokenizer.get_vocab_size(), **config)
    torch.manual_seed(7)
    model = transformers.AutoModelForSequenceClassification.from_config(built)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    saved = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(saved), encoding="utf-8")
    return folder


def tiny_config(model_type: str, **config: Any) -> Any:
    """Its config with three labels, and every size that it has a name for made small."""
    return _tiny(CONFIG_MAPPING[model_type], {**_MORE.get(model_type, {}), **config, "num_labels": 3})


def _tiny(kind: Any, config: dict[str, Any]) -> Any:
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    given = {name: size for name, size in _SIZES.items() if name in fields} | config
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    given |= {name: id for name, id in special.items() if isinstance(fields.get(name), int) and name not in config}
    for name, part in getattr(kind, "sub_configs_defaults", {}).items():
        found = CONFIG_MAPPING[part.model_type] if hasattr(part, "init_kwargs") else part
        inner = {key: value for key, value in config.items() if key in ("vocab_size", "layer_types", "pad_token_id")}
        if not found.sub_configs_defaults:
            inner = {key: value for key, value in inner.items() if key in found.__dataclass_fields__}
        given[name] = _tiny(found, {**inner, **(getattr(part, "init_kwargs", None) or {})})
    if "vocab_size" not in fields:
        given.pop("vocab_size", None)
    return kind(**given)


TEXTS = [
    "soup",
    SAMPLE[0],
    SAMPLE[1],
    SAMPLE[0].replace("keeper", "sweeper"),
    "salt and storm, he wrote </s> in a letter",
    "salt and storm, he wrote of that in a letter",
    "rain <pad> again <pad>",
    *(f"{number} miles of rain" for number in range(4)),
]
