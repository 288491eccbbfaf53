"""Folders of tokenizers of every family, with tiny vocabularies, and with settings as they are met in the wild."""

from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tests.scoring.checkpoints import SAMPLE, bytelevel, unigram, wordpiece

#: Accents, other scripts, emoji, blanks at either end, special tokens as text, words without end.
TEXTS = (
    "", " ", "a storm", "  The river ROSE,  twice\t\n", "\u00c9t\u00e9 na\u00efve Caf\u00e9 e\u0301",
    "\u65e5\u672c\u8a9e\u306e soup", "\U0001f600 brass \U0001f468\u200d\U0001f469\u200d\U0001f467", "x" * 130,
    "[SEP] and [CLS] and </s> <s> <pad> <unk> <mask> [MASK]", "soupxx storm soupxx", "SoupXX \ufb01ve \u00bd",
    "\u0440\u0435\u043a\u0430 \u0627\u0644\u0646\u0647\u0631 1234567890 12,000.50",
    "a\u0000b\ufffdc \u200b d", "<0x41>\u2581soup",
    " ".join(SAMPLE[:3]), "storm " * 90 + "the end", "1" * 700 + " salt", "<new> [new] soup<new>",
)  # fmt: skip


@functools.cache
def spm(kind: str, **options: Any) -> bytes:
    """A SentencePiece model over SAMPLE: unigram, or bpe with byte fallback."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE), model_writer=buffer, vocab_size=110 + 256 * (kind == "bpe"), num_threads=1,
        model_type=kind, byte_fallback=kind == "bpe", minloglevel=2, hard_vocab_limit=kind == "bpe", **options,
    )  # fmt: skip
    return buffer.getvalue()


def albert() -> bytes:
    """A SentencePiece model as ALBERT has it, with BERT's special tokens."""
    return spm("unigram", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]")


@functools.cache
def llama() -> str:
    """A tokenizer.json as Llama 2 has it: BPE over whole texts, with byte fallback."""
    vocabulary = {
        token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))])
    }
    for letter in sorted({letter for text in SAMPLE for letter in text.replace(" ", "\u2581")}):
        vocabulary[letter] = len(vocabulary)
    merges = [("\u2581", "s"), ("t", "h"), ("th", "e"), ("\u2581s", "t"), ("o", "u"), ("\u2581", "the")]
    vocabulary |= {"".join(pair): len(vocabulary) + place for place, pair in enumerate(merges)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return str(made.to_str())


@functools.cache
def masked(make: Callable[[], tokenizers.Tokenizer]) -> str:
    """With a mask token, as all masked language models have one."""
    state = json.loads(make().to_str())
    vocabulary = state["model"]["vocab"]
    index = len(vocabulary)
    vocabulary.append(["<mask>", 0.0]) if isinstance(vocabulary, list) else vocabulary.update({"<mask>": index})
    flags = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}
    state["added_tokens"].append({"id": index, "content": "<mask>", **flags})
    return json.dumps(state)


def gpt2() -> tokenizers.Tokenizer:
    """Byte BPE without special tokens around a text."""
    made = bytelevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def cased() -> tokenizers.Tokenizer:
    """WordPiece that keeps letters as they are."""
    made = wordpiece()
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    return made


def modern() -> tokenizers.Tokenizer:
    """Byte BPE with BERT's special tokens around it."""
    made = bytelevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


#: Family -> type of the model, classes that its settings may name, and tokenizer.json or its one vocabulary file.
FAMILIES: dict[str, tuple[str, tuple[str | None, ...], Callable[[], str | tuple[str, bytes]]]] = {
    "bert": ("bert", (None, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"),
             lambda: wordpiece().to_str()),
    "cased": ("bert", (None, "BertTokenizer", "PreTrainedTokenizerFast"), lambda: cased().to_str()),
    "distilbert": ("distilbert", (None, "DistilBertTokenizer", "PreTrainedTokenizer"), lambda: wordpiece().to_str()),
    "electra": ("electra", (None, "ElectraTokenizer", "ElectraTokenizerFast"), lambda: wordpiece().to_str()),
    "roberta": ("roberta", (None, "RobertaTokenizer", "PreTrainedTokenizerFast"), lambda: masked(bytelevel)),
    "unmasked": ("roberta", (None, "RobertaTokenizer"), lambda: bytelevel().to_str()),
    "xlm-roberta": ("xlm-roberta", (None, "XLMRobertaTokenizer", "PreTrainedTokenizerFast"), lambda: masked(unigram)),
    "camembert": ("camembert", ("PreTrainedTokenizerFast",), lambda: masked(unigram)),
    "modernbert": ("modernbert", (None, "PreTrainedTokenizerFast", "BertTokenizer"), lambda: modern().to_str()),
    "gpt2": ("gpt2", (None, "GPT2Tokenizer", "PreTrainedTokenizerFast"), lambda: gpt2().to_str()),
    "llama": ("llama", (None, "LlamaTokenizer", "PreTrainedTokenizerFast"), llama),
    "llama-spm": ("llama", (None, "LlamaTokenizer"), lambda: ("tokenizer.model", spm("bpe"))),
    "albert-spm": ("albert", (None, "AlbertTokenizer"), lambda: ("spiece.model", albert())),
    "xlm-roberta-spm": ("xlm-roberta", (None, "XLMRobertaTokenizer"),
                        lambda: ("sentencepiece.bpe.model", spm("unigram"))),
    "deberta-spm": ("deberta-v2", (None, "DebertaV2Tokenizer"), lambda: ("spm.model", spm("unigram"))),
    "t5-spm": ("t5", (None, "T5Tokenizer"), lambda: ("spiece.model", spm("unigram"))),
}  # fmt: skip

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
_TOKEN: dict[str, Any] = {"content": "soupxx", **_FLAGS, "special": False}
#: What special_tokens_map.json may say.
_SPECIAL: tuple[dict[str, Any], ...] = (
    {"cls_token": "[CLS]"},
    {"mask_token": {"content": "[new]", **_FLAGS}},
    {"additional_special_tokens": ["<new>"]},
)
#: Entries of tokenizer_config.json, of which each folder gets some.
SETTINGS: tuple[dict[str, Any], ...] = (
    {"truncation_side": "left"}, {"truncation_side": "right"}, {"do_lower_case": True}, {"do_lower_case": False},
    {"strip_accents": False}, {"strip_accents": True}, {"tokenize_chinese_chars": False}, {"add_prefix_space": True},
    {"add_prefix_space": False}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False},
    {"model_max_length": 20}, {"split_special_tokens": True}, {"added_tokens_decoder": {"7": _TOKEN}},
    {"added_tokens_decoder": {}}, {"extra_special_tokens": ["<new>"]},
    {"additional_special_tokens": ["<new>", "storm"]},
    {"mask_token": "[new]"}, {"pad_token": "soup", "padding_side": "left"}, {"cls_token": "<s>", "sep_token": "</s>"},
    {"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": True, "normalized": True}},
    {"unk_token": "<unk>"}, {"image_token": "<new>"}, {"legacy": False}, {"errors": "replace", "trim_offsets": True},
    {"clean_up_tokenization_spaces": True, "model_input_names": ["input_ids", "attention_mask"]},
    {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"},
)  # fmt: skip


def write_tokenizer(folder: Path, family: str, seed: int, most: int = 3) -> Path:
    """A folder with the family's vocabulary and what else the seed says; seed 0 is the vocabulary alone."""
    dice = random.Random(seed)
    model_type, classes, make = FAMILIES[family]
    made = make()
    settings: dict[str, Any] = {}
    for said in dice.sample(SETTINGS, dice.randint(0, most) if seed else 0):
        settings |= said
    if name := dice.choice(classes) if seed else None:
        settings["tokenizer_class"] = name
    if isinstance(made, str):
        state = json.loads(made)
        if seed and dice.random() < 0.3:
            state["truncation"] = {"direction": dice.choice(["Left", "Right"]), "max_length": 16,
                                   "strategy": "LongestFirst", "stride": 0}  # fmt: skip
        if seed and dice.random() < 0.2:
            state["padding"] = {"strategy": {"Fixed": 40}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0,
                                "pad_type_id": 0, "pad_token": state["added_tokens"][0]["content"]}  # fmt: skip
        if seed and dice.random() < 0.2:
            state["added_tokens"].append({**_TOKEN, "id": len(state["model"]["vocab"])})
        files: dict[str, bytes] = {"tokenizer.json": json.dumps(state).encode()}
    else:
        files = dict([made])
    if settings or dice.random() < 0.5:
        files["tokenizer_config.json"] = json.dumps(settings).encode()
    if seed and dice.random() < 0.2:
        files["special_tokens_map.json"] = json.dumps(dice.choice(_SPECIAL)).encode()
    if seed and dice.random() < 0.2:
        files["added_tokens.json"] = json.dumps(dice.choice([{"soupxx": 400}, {"[CLS]": 2}, {"storm": 30}])).encode()
    files["config.json"] = json.dumps({"model_type": model_type}).encode()
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder
