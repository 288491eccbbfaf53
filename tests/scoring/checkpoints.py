"""Tiny random checkpoints of every family, written the way transformers saves them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from corpuscore.scoring.bert.encoder import Network

SAMPLE = [
    "The lighthouse keeper counted every ship that passed before dawn.",
    "Nobody laughed, but everyone remembered the soup, the storm and the brass band.",
    "Why would a baker walk nine miles for salt? Because the tenth mile had a bear in it.",
    "Rain again; the river rose, the cellar filled, and my aunt sang all the way through it.",
    "I love this! Really, truly, wonderfully done. Terrible ending though.",
] * 4

LABELS = ("joy", "anger", "fear", "calm", "pride")
MAX_POSITIONS = 48


def wordpiece() -> tokenizers.Tokenizer:
    """A BERT tokenizer over SAMPLE."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SAMPLE, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def bytelevel() -> tokenizers.Tokenizer:
    """A RoBERTa tokenizer over SAMPLE: <s> 0, <pad> 1, </s> 2."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.post_processor = _template(tokenizer, "<s>", "</s>")
    return tokenizer


def unigram() -> tokenizers.Tokenizer:
    """An XLM-R tokenizer over SAMPLE: <s> 0, <pad> 1, </s> 2, <unk> 3."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.post_processor = _template(tokenizer, "<s>", "</s>")
    return tokenizer


def _template(tokenizer: tokenizers.Tokenizer, first: str, last: str) -> Any:
    ids = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    return processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)


_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": 0.35,
}
_ROBERTA = {**_SIZES, "max_position_embeddings": MAX_POSITIONS + 2, "pad_token_id": 1, "type_vocab_size": 1}
_DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40, "initializer_range": 0.35}
_MODERNBERT = {**_SIZES, "pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2}
_ALBERT = {**_SIZES, "embedding_size": 16}
_DEBERTA = {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 12}
_DEBERTA_V3 = {
    **_DEBERTA, "position_buckets": 6, "max_relative_positions": 24, "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip

#: Family -> how its tokenizer is made, its config class, and the config's values.
FAMILIES: dict[str, tuple[Callable[[], tokenizers.Tokenizer], str, dict[str, Any]]] = {
    "bert": (wordpiece, "BertConfig", _SIZES),
    "roberta": (bytelevel, "RobertaConfig", _ROBERTA),
    "xlm-roberta": (unigram, "XLMRobertaConfig", _ROBERTA),
    "camembert": (unigram, "CamembertConfig", _ROBERTA),
    "distilbert": (wordpiece, "DistilBertConfig", {**_DISTILBERT, "max_position_embeddings": MAX_POSITIONS}),
    "electra": (wordpiece, "ElectraConfig", {**_SIZES, "embedding_size": 16}),
    "modernbert": (wordpiece, "ModernBertConfig", _MODERNBERT),
    "modernbert-mean": (wordpiece, "ModernBertConfig", {**_MODERNBERT, "classifier_pooling": "mean"}),
    "albert": (wordpiece, "AlbertConfig", {**_SIZES, "embedding_size": 16}),
    "albert-groups": (wordpiece, "AlbertConfig", {**_ALBERT, "num_hidden_layers": 5, "num_hidden_groups": 2}),
    "albert-wide": (wordpiece, "AlbertConfig", {**_ALBERT, "embedding_size": 32, "inner_group_num": 2}),
    "deberta-v2": (wordpiece, "DebertaV2Config", {**_DEBERTA, "conv_kernel_size": 3, "position_biased_input": True}),
    "deberta-v3": (wordpiece, "DebertaV2Config", _DEBERTA_V3),
    "deberta-plain": (wordpiece, "DebertaV2Config", {**_SIZES, "embedding_size": 16, "pos_att_type": ["p2c"]}),
    "mpnet": (bytelevel, "MPNetConfig", {**_ROBERTA, "relative_attention_num_buckets": 32}),
}
#: Those whose attention has a bias, for which there is no flash kernel.
BIASED = ("deberta-v2", "deberta-v3", "deberta-plain", "mpnet")

#: Those whose tokenizer.json is what transformers' class for the type of model would make.
BY_CLASS = ("bert", "distilbert", "electra", "modernbert", "modernbert-mean")


@functools.cache
def _tokenizer_json(make: Callable[[], tokenizers.Tokenizer]) -> str:
    return make().to_str()


def write_checkpoint(folder: Path, family: str = "bert", *, labels: tuple[str, ...] = LABELS, **config: Any) -> Path:
    """Save a random classifier of the family, the same for the same arguments, and return its folder."""
    make, config_class, sizes = FAMILIES[family]
    text = _tokenizer_json(make)
    settings = {"problem_type": "multi_label_classification", **sizes, **config}
    settings["vocab_size"] = tokenizers.Tokenizer.from_str(text).get_vocab_size()
    settings["id2label"] = dict(enumerate(labels))
    settings["label2id"] = {label: index for index, label in enumerate(labels)}
    torch.manual_seed(7)
    built = getattr(transformers, config_class)(**settings)
    model = transformers.AutoModelForSequenceClassification.from_config(built)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    if family not in BY_CLASS:
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8"
        )
    return folder


def config_of(model: Any) -> dict[str, Any]:
    """What transformers would write into a model's config.json."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def network_of(model: Any) -> Network:
    """A model of transformers as the native encoder takes it."""
    state = {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}
    return Network.of(config_of(model), model.config.num_labels, state)
