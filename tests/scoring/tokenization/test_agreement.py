"""Tokens and scores are those of transformers' AutoTokenizer and pipeline, whatever lies beside tokenizer.json."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.errors import ModelError
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenization.agreement import _HARMLESS, speaks_for_itself
from corpuscore.scoring.tokenization.files import TokenizerFiles
from corpuscore.scoring.tokenizer import TextTokenizer
from tests.scoring.checkpoints import LABELS, MAX_POSITIONS, write_checkpoint
from tests.scoring.tokenization.folders import FAMILIES, TEXTS, write_tokenizer

#: Those whose scorers start without transformers where the files agree.
QUICK = ("bert", "cased", "distilbert", "electra", "roberta", "xlm-roberta", "modernbert")
SHORT = 12


def auto_tokenizer(folder: Path) -> Any:
    """What transformers itself makes of a folder."""
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def split(tokens: Tokens) -> list[list[int]]:
    """Ids of each text."""
    return [ids.tolist() for ids in np.split(tokens.ids, tokens.offsets[1:-1])]


def assert_same_tokens(folder: Path, *, refused: bool = True) -> None:
    """Whole and cut, text by text; what transformers cannot load is refused, or at least no other error."""
    try:
        theirs = auto_tokenizer(folder)
        whole = [theirs(text)["input_ids"] for text in TEXTS]
    except Exception:  # a class that cannot make anything of the vocabulary, or knows no unknown word
        with pytest.raises(ModelError) if refused else suppress(ModelError):
            TextTokenizer.load(folder, "it")
        return
    ours = TextTokenizer.load(folder, "it")
    assert split(ours.encode(TEXTS, None)) == whole
    cut = [theirs(text, truncation=True, max_length=SHORT)["input_ids"] for text in TEXTS]
    tokens = ours.encode(TEXTS, SHORT)
    assert split(tokens) == cut
    assert tokens.truncated is not None
    assert tokens.truncated.tolist() == [len(ids) > SHORT for ids in whole]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_auto_tokenizer(family: str, tmp_path: Path) -> None:
    """Settings at random, the same in every run, and none; quick or not."""
    for seed in range(9):
        folder = write_tokenizer(tmp_path / str(seed), family, seed)
        try:
            assert_same_tokens(folder)
        except AssertionError as error:
            said = {
                path.name: path.read_text()[:500] for path in folder.glob("*.json") if path.name != "tokenizer.json"
            }
            raise AssertionError(f"{family}, seed {seed}: {said}: {error}") from error


@pytest.mark.parametrize("family", QUICK)
def test_where_no_transformers_is_asked_the_tokens_are_the_same(family: str, tmp_path: Path) -> None:
    """More of the folders of which tokenizer.json is held to say all."""
    found = 0
    for seed in range(100, 125):
        folder = write_tokenizer(tmp_path / str(seed), family, seed, most=1)
        if speaks_for_itself(TokenizerFiles.read(folder, "it")):
            found += 1
            assert_same_tokens(folder)
    assert found > 0


_NAMES = st.sampled_from(
    sorted({*_HARMLESS, "unk_token", "cls_token", "mask_token", "split_special_tokens", "vocab", "x"})
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10**6),
    st.sampled_from(
        ["", "[SEP]", "soup", "left", "BertTokenizer", "PreTrainedTokenizerFast", "RobertaTokenizer", "T5"]
    ),
    st.lists(st.sampled_from(["storm", "<new>", 3]), max_size=2),
    st.dictionaries(st.sampled_from(["3", "storm", "content", "__type"]), st.sampled_from([3, "[SEP]", True, {}])),
)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]),
    said=st.dictionaries(_NAMES, _VALUES, max_size=3),
)
def test_settings_of_any_values(name: str, said: dict[str, Any]) -> None:
    """What transformers makes of them; where it can make nothing of them, no error but our own."""
    with tempfile.TemporaryDirectory() as root:
        folder = write_tokenizer(Path(root) / "it", "bert", 0)
        (folder / name).write_text(json.dumps(said))
        assert_same_tokens(folder, refused=False)


def _saved(name: str, **more: Any) -> dict[str, Any]:
    """What save_pretrained writes beside the tokenizer.json of a class."""
    angles = name in ("RobertaTokenizer", "XLMRobertaTokenizer")
    names = ("<unk>", "</s>", "<pad>", "<s>", "<mask>") if angles else ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
    roles = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    rest = {"model_max_length": 512, "clean_up_tokenization_spaces": True, "name_or_path": "x", "tokenizer_class": name}
    return {**dict(zip(roles, names, strict=True)), **rest, **more}


@pytest.mark.parametrize(
    ("family", "config", "quick"),
    [
        ("bert", _saved("BertTokenizer", do_lower_case=True, strip_accents=None, tokenize_chinese_chars=True), True),
        ("bert", _saved("BertTokenizer", do_lower_case=False), False),
        ("bert", _saved("BertTokenizer", strip_accents=False), False),
        ("bert", _saved("BertTokenizer", truncation_side="left"), True),
        ("bert", _saved("BertTokenizer", additional_special_tokens=["<new>"]), False),
        ("cased", _saved("BertTokenizerFast", do_lower_case=False), True),
        ("distilbert", _saved("DistilBertTokenizer", do_lower_case=True, never_split=None), True),
        ("roberta", _saved("RobertaTokenizer", add_prefix_space=False, trim_offsets=True, errors="replace"), True),
        ("roberta", _saved("RobertaTokenizer", add_prefix_space=True), False),
        ("xlm-roberta", _saved("XLMRobertaTokenizer"), True),
        ("xlm-roberta", _saved("XLMRobertaTokenizer", split_special_tokens=True), False),
        ("modernbert", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}, True),
        ("modernbert", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}, False),
    ],
)  # fmt: skip
def test_usual_files_start_without_transformers(
    family: str, config: dict[str, Any], quick: bool, tmp_path: Path
) -> None:
    """What save_pretrained writes for the families with an unpadded path agrees with its tokenizer.json."""
    folder = write_tokenizer(tmp_path / "it", family, 0)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert speaks_for_itself(TokenizerFiles.read(folder, "it")) is quick
    assert_same_tokens(folder)


@pytest.mark.parametrize(
    ("family", "config"), [("bert", {"strip_accents": False}), ("roberta", {"add_prefix_space": True})]
)
def test_what_was_saved_again_starts_without_transformers(family: str, config: dict[str, Any], tmp_path: Path) -> None:
    """Its tokenizer.json says then what the settings say."""
    folder = write_tokenizer(tmp_path / "it", family, 0)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert not speaks_for_itself(TokenizerFiles.read(folder, "it"))
    auto_tokenizer(folder).save_pretrained(folder)
    assert speaks_for_itself(TokenizerFiles.read(folder, "it"))
    assert_same_tokens(folder)


#: Odd texts that tiny models can score.
SCORED = [text for text in TEXTS if text.strip()]
_FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("bert", {"truncation_side": "left"}),
        ("bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False}),
        ("distilbert", {"tokenizer_class": "DistilBertTokenizer", "tokenize_chinese_chars": False}),
        ("roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True, "truncation_side": "left"}),
        ("xlm-roberta", {**_FAST, "split_special_tokens": True}),
        ("albert", {**_FAST, "truncation_side": "left", "model_max_length": 16}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_the_pipeline(family: str, config: dict[str, Any], tmp_path: Path) -> None:
    """Whatever the settings say, within 1e-5 of transformers' own text-classification pipeline, text by text."""
    folder = write_checkpoint(tmp_path / "it", family, problem_type="single_label_classification")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    pipeline: Any = transformers.TextClassificationPipeline(  # type: ignore[no-untyped-call]
        model=model, tokenizer=auto_tokenizer(folder), top_k=None, device="cpu"
    )
    texts = [text for text in SCORED if "<mask>" not in text]  # which RoBERTa's class adds, and nothing was trained for
    expected = np.zeros((len(texts), len(LABELS)))
    for row, text in enumerate(texts):
        for found in pipeline([text], truncation=True, max_length=MAX_POSITIONS)[0]:
            expected[row, LABELS.index(found["label"])] = found["score"]
    scores = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS).score(texts)
    assert np.abs(scores - expected).max() < 1e-5


def test_every_setting_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Each file beside tokenizer.json, and each change of one, is another fingerprint."""
    folder = write_checkpoint(tmp_path / "it")
    seen = [describe_scorer(str(folder), device="cpu").fingerprint]
    for name, said in (
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("tokenizer_config.json", {"truncation_side": "right"}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("special_tokens_map.json", {"cls_token": "[CLS]"}),
        ("added_tokens.json", {"[CLS]": 2}),
    ):
        (folder / name).write_text(json.dumps(said))
        seen.append(describe_scorer(str(folder), device="cpu").fingerprint)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("side", ["up", 3, None])
def test_a_side_that_is_none(side: Any, tmp_path: Path) -> None:
    """A text has two ends."""
    folder = write_checkpoint(tmp_path / "it")
    (folder / "tokenizer_config.json").write_text(json.dumps({"truncation_side": side}))
    with pytest.raises(ModelError, match="truncation_side"):
        describe_scorer(str(folder), device="cpu")


def test_a_smaller_model_max_length_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The number that was asked for counts, as in transformers, and the log says that the model was saved with less."""
    folder = write_checkpoint(tmp_path / "it")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    describe_scorer(str(folder), device="cpu", max_tokens=16)
    assert "model_max_length" not in caplog.text
    describe_scorer(str(folder), device="cpu", max_tokens=17)
    assert "cut at max_tokens=17, and model_max_length in tokenizer_config.json is 16" in caplog.text
