"""Nothing that lies in a model's folder, in a corpus or in the work location is ever run."""

from __future__ import annotations

import ast
import io
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch

import corpuscore
from corpuscore.corpus import DocumentReader, list_objects
from corpuscore.errors import CorpuscoreError, ModelError, StorageError
from corpuscore.manifest import Manifest
from corpuscore.options import ReadOptions
from corpuscore.records import Partition
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.storage import Store
from tests.scoring.checkpoints import LABELS, MAX_POSITIONS, write_checkpoint


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that foreign code would leave behind."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return write_checkpoint(tmp_path / "model")


def score(folder: Path, **options: Any) -> tuple[int, ...]:
    """Load a model and score a text with it: the shape of the scores."""
    shape: tuple[int, ...] = (
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS, **options).score(["a storm"]).shape
    )
    return shape


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Change a JSON file, which need not be there."""
    path = folder / name
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **changes}), encoding="utf-8")


def write_vocabulary(folder: Path) -> None:
    """Have a vocabulary that transformers converts in place of tokenizer.json."""
    words = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.__getitem__)))
    (folder / "tokenizer.json").unlink()


def write_module(folder: Path, marker: Path) -> str:
    """A Python module beside the weights, under the names that transformers looks for; its stem."""
    body = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Custom: pass\n"
    for name in ("custom.py", "modeling_custom.py", "configuration_custom.py", "tokenization_custom.py"):
        (folder / name).write_text(body, encoding="utf-8")
    return "custom"


def test_the_marker_tells(marker: Path) -> None:
    """What these tests look for does happen where such a pickle is read without care."""
    pickle.loads(pickle.dumps(Touch(marker)))  # noqa: S301 (our own)
    assert marker.exists()


@pytest.mark.parametrize("backend", ["bert", "transformers"])
def test_a_config_that_names_code_is_refused(folder: Path, marker: Path, backend: str) -> None:
    """auto_map in config.json, a model type or an architecture of a module in the folder: refused, and not imported."""
    name = write_module(folder, marker)
    for changes in (
        {"auto_map": {"AutoModelForSequenceClassification": f"{name}.Custom", "AutoConfig": f"{name}.Custom"}},
        {"model_type": name, "architectures": [f"{name}.CustomForSequenceClassification"]},
    ):
        edit(folder, "config.json", **changes)
        with pytest.raises(ModelError):
            score(folder, backend=backend)
    assert not marker.exists()


@pytest.mark.parametrize("kind", [["custom.Custom", None], "custom.Custom"])
def test_a_tokenizer_that_names_code_runs_none(folder: Path, marker: Path, kind: object) -> None:
    """auto_map and class of tokenizer_config.json are a module in the folder, which is never imported."""
    write_vocabulary(folder)
    write_module(folder, marker)
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": kind}, tokenizer_class="CustomTokenizer")
    with suppress(ModelError):
        score(folder)
    assert not marker.exists()


def test_a_chat_template_is_never_rendered(folder: Path, marker: Path) -> None:
    """A template that would run a command is text like any other."""
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(marker) + "') }}"
    write_vocabulary(folder)
    edit(folder, "tokenizer_config.json", chat_template=template)
    (folder / "chat_template.jinja").write_text(template)
    assert score(folder) == (1, len(LABELS))
    assert not marker.exists()


@pytest.mark.parametrize("backend", ["bert", "transformers"])
@pytest.mark.parametrize(
    "save",
    [lambda value, path: torch.save(value, path), lambda value, path: path.write_bytes(pickle.dumps(value))],
    ids=["torch", "plain"],
)
def test_a_pickle_that_would_run_code_does_not(
    folder: Path, marker: Path, backend: str, save: Callable[[Any, Path], None]
) -> None:  # fmt: skip
    """Without --allow-pickle it is not opened; with it, what is not a tensor is an error, and nothing is run."""
    (folder / "model.safetensors").unlink()
    save({"weight": Touch(marker)}, folder / "pytorch_model.bin")
    for allowed, words in ((False, "only pickled weights"), (True, "cannot be")):
        with pytest.raises(ModelError, match=words):
            score(folder, backend=backend, allow_pickle=allowed)
    assert not marker.exists()


@pytest.mark.parametrize("value", [[1], {"weight": 3}, torch.zeros(2), {1: torch.zeros(2)}])
def test_a_pickle_of_something_else_is_an_error(folder: Path, value: object) -> None:
    """Weights are tensors by name."""
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read"):
        score(folder, allow_pickle=True)


def test_pickles_beside_the_weights_are_not_opened(folder: Path, marker: Path) -> None:
    """What training left in the folder, in whatever form, is of no interest."""
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "pytorch_model.bin",
        "adapter_model.bin",
        "x.npy",
    ):
        (folder / name).write_bytes(pickle.dumps(Touch(marker)))
    assert score(folder) == (1, len(LABELS))
    assert score(folder, allow_pickle=True) == (1, len(LABELS))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "", ".", "a/b", 7, None])
def test_an_index_names_files_of_its_folder_only(folder: Path, name: object) -> None:
    """Shards that lie elsewhere are not read."""
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    edit(folder, "model.safetensors.index.json", weight_map={"weight": name})
    with pytest.raises(ModelError, match="names no files of its folder"):
        describe_scorer(str(folder), device="cpu")


def _with_extension(marker: Path) -> bytes:
    """Parquet whose text column says that it is an extension type, with a pickle as its parameters."""
    told = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Touch(marker))}
    schema = pa.schema([pa.field("text", pa.string(), metadata=told)], metadata={"pandas": pickle.dumps(Touch(marker))})
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a storm"]}, schema=schema), sink)
    return sink.getvalue()


def test_an_extension_type_in_the_corpus_runs_nothing(tmp_path: Path, marker: Path) -> None:
    """Its texts are read as what they are stored as."""
    (tmp_path / "x.parquet").write_bytes(_with_extension(marker))
    (item,) = list_objects([str(tmp_path / "x.parquet")])
    partition = Partition(item.uri, item.etag, item.size_bytes, item.format, "whole", 0, 0)
    with DocumentReader(partition, ReadOptions()) as reader:
        assert [row["text"] for batch in reader for row in batch.to_pylist()] == ["a storm"]
    assert not marker.exists()


def test_an_extension_type_in_the_work_location_runs_nothing(tmp_path: Path, marker: Path) -> None:
    """A manifest that somebody else wrote is damaged, and no more."""
    store = Store(str(tmp_path / "work"))
    store.write(f"manifests/{'0' * 64}.parquet", _with_extension(marker))
    with pytest.raises(StorageError, match="manifest"):
        Manifest.load(store, "0" * 64)
    assert not marker.exists()


SOURCES = sorted(Path(corpuscore.__file__).parent.rglob("*.py"))


def calls(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """All calls in a module: what is called, and its keywords that are constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        (ast.unparse(call.func), {word.arg or "**": getattr(word.value, "value", ...) for word in call.keywords})
        for call in found
    ]


def test_nothing_in_the_source_runs_what_it_reads() -> None:
    """No unpickling, no remote code, torch reads tensors alone; whoever adds such a call meets this test."""
    assert len(SOURCES) > 100
    for path in SOURCES:
        for function, keywords in calls(path):
            assert keywords.get("trust_remote_code", False) is False, path
            assert function not in ("pickle.load", "pickle.loads", "cloudpickle.loads", "eval", "exec"), path
            assert function != "torch.load" or keywords.get("weights_only") is True, path
            assert function != "np.load" or not keywords.get("allow_pickle", False), path
            if function.startswith("transformers.Auto") and function.endswith(".from_pretrained"):
                assert keywords.get("trust_remote_code") is False, path


def test_no_error_but_our_own_for_a_folder_of_nothing_but_traps(tmp_path: Path, marker: Path) -> None:
    """Everything at once."""
    folder = tmp_path / "traps"
    folder.mkdir()
    write_module(folder, marker)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(CorpuscoreError):
        score(folder, allow_pickle=True)
    assert not marker.exists()
