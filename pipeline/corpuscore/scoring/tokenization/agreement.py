"""Whether tokenizer.json by itself is what AutoTokenizer would make of a folder, decided without transformers.

For some classes of tokenizers transformers takes tokenizer.json as it is, and for others only the vocabulary in it:
the rest is built from tokenizer_config.json. Either way it then adds the tokens that the other files name. What is
written here are the rules for the classes of the unpadded backends; of everything else, and wherever a rule is not
met, transformers is asked.

Source: transformers 5.23, AutoTokenizer.from_pretrained, tokenization_utils_tokenizers.py and the classes' own files;
tests/scoring/tokenization compares with the installed one
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from corpuscore.scoring.tokenization.files import TokenizerFiles

#: A tokenizer that is taken from tokenizer.json as it is, and the names that tokenizer_config.json has for it.
_AS_SAVED = "TokenizersBackend"
_GENERIC = ("TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")

#: Class of the tokenizer by the type of the model, where tokenizer_config.json names none.
_REGISTERED = {
    "bert": "BertTokenizer", "distilbert": "BertTokenizer", "electra": "BertTokenizer",
    "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer", "modernbert": _AS_SAVED, "srupp": _AS_SAVED,
}  # fmt: skip

#: Entries of tokenizer_config.json that change no token, or that are looked at below.
_HARMLESS = frozenset((
    "tokenizer_class", "model_max_length", "max_len", "max_length", "stride", "truncation_strategy", "truncation_side",
    "padding_side", "pad_to_multiple_of", "pad_token_type_id", "clean_up_tokenization_spaces", "name_or_path",
    "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file", "chat_template", "model_input_names",
    "processor_class", "do_basic_tokenize", "never_split", "errors", "trim_offsets", "is_local", "local_files_only",
    "backend", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "add_bos_token",
    "add_eos_token", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "use_fast",
    "sp_model_kwargs", "from_slow", "verbose", "return_tensors", "padding", "truncation",
))  # fmt: skip
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False}


@dataclass(frozen=True, slots=True)
class _Rebuilt:
    """A class that takes nothing but the vocabulary from tokenizer.json.

    Attributes:
        build: Its parts for given settings and state, with no vocabulary; it may raise whatever the library raises.
        ends: Settings that name the tokens before and after each text.
        defaults: Its special tokens, where the settings name no others.
    """

    build: Callable[[Mapping[str, Any], Mapping[str, Any]], tokenizers.Tokenizer]
    ends: tuple[str, str]
    defaults: Mapping[str, str]


def speaks_for_itself(files: TokenizerFiles) -> bool:
    """Whether AutoTokenizer gives the same tokens as tokenizer.json; False also where that cannot be shown."""
    try:
        name = _class_name(files)
        if name is None or not _settings_are_known(files) or not _tokens_are_there(files, exactly=name != _AS_SAVED):
            return False
        return name == _AS_SAVED or _is_rebuilt_alike(_REBUILT[name], files)
    except Exception:  # files that are not as they should be: transformers may judge them
        return False


def _class_name(files: TokenizerFiles) -> str | None:
    """The class that AutoTokenizer takes, where it is one of those that are known here."""
    registered = _REGISTERED.get(str(files.config.get("model_type")))
    if registered is None or registered == _AS_SAVED:
        return registered
    named = files.settings.get("tokenizer_class") or files.config.get("tokenizer_class") or registered
    plain = str(named).removesuffix("Fast")
    if plain in _GENERIC:
        return _AS_SAVED
    return plain if plain in _REBUILT else None


def _settings_are_known(files: TokenizerFiles) -> bool:
    """Whether the settings hold nothing but what changes no token, names of special tokens, and defaults."""
    unknown = (
        name
        for name, value in files.settings.items()
        if name not in _HARMLESS and not name.endswith("_token") and not (name == "split_special_tokens" and not value)
    )
    return next(unknown, None) is None


def _tokens_are_there(files: TokenizerFiles, *, exactly: bool) -> bool:
    """Whether every token that the files beside tokenizer.json name stands there in the same way.

    Args:
        files: What lies in the folder.
        exactly: Whether nothing may stand in tokenizer.json but what the other files name, where they name anything.
    """
    stored = {token["content"]: token for token in files.state.get("added_tokens") or ()}
    if any(content not in stored for content in _special_contents(files.settings)):
        return False
    if "added_tokens_decoder" in files.settings:
        said = [{"id": int(index), **token} for index, token in files.settings["added_tokens_decoder"].items()]
        same = all(_flags(stored.get(token["content"])) == _flags(token) for token in said)
        return same and (not exactly or len(said) == len(stored))
    listed = chain.from_iterable(value for value in files.special.values() if isinstance(value, list))
    return (
        all(content in stored and stored[content]["id"] == index for content, index in files.added.items())
        and all(name.endswith("_token") or name in _LISTS for name in files.special)
        and all(isinstance(token, str) for token in listed)
        and all(content in stored for content in _special_contents(files.special))
    )


def _special_contents(settings: Mapping[str, Any]) -> Iterator[str]:
    """Contents of the special tokens that settings name, one by one or in lists."""
    for name, value in settings.items():
        if name.endswith("_token") and not isinstance(value, bool) and value is not None:
            yield _content(value)
        elif name in _LISTS:
            yield from map(_content, value.values() if isinstance(value, dict) else value or ())


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _flags(token: Mapping[str, Any] | None) -> Any:
    """A token's id, content and flags, with those that it leaves out."""
    if token is None:
        return None
    special = bool(token.get("special", False))
    rest = {name: bool(token.get(name, default)) for name, default in _FLAGS.items()}
    return token["id"], token["content"], special, bool(token.get("normalized", not special)), rest


def _is_rebuilt_alike(rebuilt: _Rebuilt, files: TokenizerFiles) -> bool:
    """Whether what the class would build has the parts of tokenizer.json, ends texts alike and adds no token."""
    legacy = {} if "added_tokens_decoder" in files.settings else files.special
    settings = {**rebuilt.defaults, **files.settings, **legacy}
    names = {name: _content(settings[name]) for name in rebuilt.defaults if settings[name] is not None}
    ids = {token["content"]: token["id"] for token in files.state.get("added_tokens") or ()}
    if any(content not in ids for content in names.values()) or any(end not in names for end in rebuilt.ends):
        return False
    vocabulary = files.state["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    if any(vocabulary.get(content) != index for content, index in ids.items()):
        return False  # one of them comes after the vocabulary, and may get another id
    model = _without_vocabulary(files.state["model"])
    bare = tokenizers.Tokenizer.from_str(json.dumps({**files.state, "model": model, "added_tokens": []}))
    bare.no_truncation()
    bare.no_padding()
    ends = [ids[names[end]] for end in rebuilt.ends]
    return bare.encode("").ids == ends and _parts(rebuilt.build(settings, files.state)) == _parts(bare)


def _parts(tokenizer: tokenizers.Tokenizer) -> tuple[Any, ...]:
    """Normalizer, pre-tokenizer and model, in the library's own words; nothing, false and empty are one."""
    state = json.loads(tokenizer.to_str())
    model = {name: value or None for name, value in state["model"].items() if name not in ("vocab", "merges")}
    return state["normalizer"], state["pre_tokenizer"], model


def _without_vocabulary(model: Mapping[str, Any]) -> dict[str, Any]:
    if model["type"] == "Unigram":
        return {**model, "vocab": [[str(place), 0.0] for place in range(model["unk_id"] + 1)]}
    return {**model, "vocab": {}} | ({"merges": []} if model["type"] == "BPE" else {})


def _bert(settings: Mapping[str, Any], state: Mapping[str, Any]) -> tokenizers.Tokenizer:  # noqa: ARG001  (alike)
    built = tokenizers.Tokenizer(models.WordPiece({}, unk_token=_content(settings["unk_token"])))
    built.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return built


def _roberta(settings: Mapping[str, Any], state: Mapping[str, Any]) -> tokenizers.Tokenizer:  # noqa: ARG001  (alike)
    built = tokenizers.Tokenizer(models.BPE({}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))
    return built


def _xlm_roberta(settings: Mapping[str, Any], state: Mapping[str, Any]) -> tokenizers.Tokenizer:
    built = tokenizers.Tokenizer(models.Unigram([(str(place), 0.0) for place in range(4)], 3, byte_fallback=False))
    if (normalizer := state.get("normalizer") or {}).get("type") == "Precompiled":
        built.normalizer = normalizers.Precompiled(base64.b64decode(normalizer["precompiled_charsmap"]))
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)]
    )
    return built


_BRACKETS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
             "mask_token": "[MASK]"}  # fmt: skip
_ANGLES = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
           "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip
_BERT = _Rebuilt(_bert, ("cls_token", "sep_token"), _BRACKETS)
_REBUILT: Mapping[str, _Rebuilt] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "RobertaTokenizer": _Rebuilt(_roberta, ("cls_token", "sep_token"), _ANGLES),
    "XLMRobertaTokenizer": _Rebuilt(_xlm_roberta, ("bos_token", "eos_token"), _ANGLES),
}
