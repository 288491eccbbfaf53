"""Which model types are scored how; a plan asks this, where neither torch nor transformers may be installed.

All that transformers' AutoModelForSequenceClassification knows is in one of these. A type that a later version of it
brings is refused by name until it is added here, which a test against the installed version demands.
"""

from __future__ import annotations

#: Unpadded: documents lie end to end. These have kernels of ours for the CPU, and torch on a GPU.
NATIVE = ("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")

#: Unpadded, in torch on every device.
PACKED = ("deberta-v2", "modernbert", "mpnet")

#: Transformers' own forward pass, in groups of texts of equal length.
GROUPED = (
    "arcee", "axk1", "axk2", "bart", "big_bird", "bigbird_pegasus", "biogpt", "bloom", "canine", "cohere_compass_text",
    "convbert", "ctrl", "data2vec-text", "deberta", "deepseek_v2", "deepseek_v3", "diffllama", "doge", "ernie", "esm",
    "esmc", "eurobert", "exaone4", "falcon", "flaubert", "fnet", "funnel", "gemma", "gemma2", "gemma3", "gemma3_text",
    "glm", "glm4", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "gte", "helium",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "ibert", "jamba", "jetmoe", "jina_embeddings_v3", "layoutlm", "lilt", "llama",
    "longformer", "luke", "mbart", "megatron-bert", "minicpm3", "minimax", "ministral", "ministral3", "mistral",
    "mistral4", "mixtral", "mobilebert", "modernbert-decoder", "modernvbert", "mpt", "mt5", "mvp", "nemotron",
    "nomic_bert", "nystromformer", "olmo", "olmo2", "olmo3", "openai-gpt", "opt", "perceiver", "persimmon", "phi",
    "phi3", "phimoe", "plbart", "qwen2", "qwen2_moe", "qwen3", "qwen3_5", "qwen3_5_text", "qwen3_moe", "qwen3_next",
    "reformer", "rembert", "roberta-prelayernorm", "roformer", "seed_oss", "smollm3", "squeezebert", "stablelm",
    "starcoder2", "t5", "t5gemma", "t5gemma2", "ultrabert", "ultravbert", "umt5", "xlm", "xlm-roberta-xl", "xlnet",
    "xmod", "yoso", "zamba", "zamba2",
)  # fmt: skip

#: What cannot be scored, or not from a text alone, each with the reason.
REFUSED = {
    "layoutlmv2": "it reads the image of a page, and where each word stands on it",
    "layoutlmv3": "it reads the image of a page, and where each word stands on it",
    "markuplm": "it reads the nodes of a web page, and the path of each",
    "mra": "its attention is a kernel that transformers compiles for a GPU, and is left out where there is none",
    "roc_bert": "it reads the shape and the sound of each character besides",
    "tapas": "it reads a table and a question about it",
}


def why_refused(model_type: str | None) -> str:
    """Why a sequence classifier of this type cannot be scored, in words; empty where it can."""
    if model_type in REFUSED:
        return REFUSED[model_type]
    known = model_type in (*NATIVE, *PACKED, *GROUPED)
    return "" if known else "it is no type of model that this version of corpuscore knows"
