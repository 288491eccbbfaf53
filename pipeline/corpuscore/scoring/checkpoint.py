"""A checkpoint on disk: find it, check it, read its labels and take its fingerprint; no torch and no weights loaded.

Everything that `describe_scorer` and `load_scorer` must agree on is decided here, once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from corpuscore.errors import ModelError
from corpuscore.records import Activation
from corpuscore.scoring.configuration import MOST_LABELS, check_config, embedding_rows, labels_by_id, read_json
from corpuscore.scoring.tensors import tensor_shapes
from corpuscore.scoring.tokenization.files import TOKENIZER_FILES, has_tokenizer
from corpuscore.scoring.tokenization.source import TokenizerSource, find_source
from corpuscore.scoring.tokenizer import TextTokenizer

BUNDLED = Path(__file__).parents[1] / "models"

#: What is fetched of a model on the hub; never code, never other frameworks' weights.
HUB_FILES = ("config.json", "*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES)
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that holds a classifier.

    Attributes:
        name: As the user gave it: `bundled`, a path or a hub name, with `@revision` where one is pinned.
        folder: Where the files lie.
        config: config.json.
        weights: Files of weights, in a stable order.
        labels: Names in column order.
        activation: How logits become probabilities.
        parameters: Number of weights, 0 where the files do not say (pickles).
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    labels: tuple[str, ...]
    activation: Activation
    parameters: int

    @property
    def architecture(self) -> str:
        """The class that transformers would load, or a dash."""
        return str((self.config.get("architectures") or ["-"])[0])

    @property
    def pickled(self) -> bool:
        """Whether reading the weights means unpickling them."""
        return self.weights[0].suffix == ".bin"

    def tokenizer(self, threads: int | None = None) -> TextTokenizer:
        """The tokenizer that came with the weights.

        Raises:
            ModelError: It cannot be read, or puts tokens around each text that the embedding has no rows for.
        """
        tokenizer = TextTokenizer.load(self.folder, self.name, threads)
        self._check_ids(max((*tokenizer.prefix, *tokenizer.suffix), default=-1))  # which need be no tokens of it
        return replace(tokenizer, rows=embedding_rows(self.config), added=dict(self._tokenizer_source.added))

    def check_vocabulary(self) -> None:
        """Make sure that each token of the vocabulary has a row in the embedding; no weights are read.

        Added tokens may have none: those are named in the log, and documents that hold one are rejects.

        Raises:
            ModelError: One has none, or the files are none of a tokenizer.
        """
        self._check_ids(self._tokenizer_source.highest)
        rows = embedding_rows(self.config)
        without = [token for index, token in self._tokenizer_source.added.items() if rows is not None and index >= rows]
        if without:
            _LOG.warning(
                "Model %s: its embedding has %d rows and none for %s; documents that hold such a token are rejects.",
                self.name, rows, ", ".join(map(repr, sorted(without)[:8])),
            )  # fmt: skip

    def note_length(self, max_tokens: int) -> None:
        """Say where texts are cut beyond what the tokenizer was saved with; the number that was asked for counts."""
        if (longest := self._tokenizer_source.longest) is not None and longest < max_tokens:
            _LOG.warning(
                "Model %s: texts are cut at max_tokens=%d, and model_max_length in tokenizer_config.json is %d.",
                self.name, max_tokens, longest,
            )  # fmt: skip

    @property
    def _tokenizer_source(self) -> TokenizerSource:
        return find_source(self.folder, self.name)

    def _check_ids(self, highest: int) -> None:
        rows = embedding_rows(self.config)
        if rows is not None and highest >= rows:
            raise ModelError(
                f"Model {self.name}: its tokenizer has ids up to {highest}, and its embedding {rows} rows",
                rule="each token needs a row in the embedding",
                next_step="put the tokenizer beside the weights that they were trained with, or enlarge the embedding "
                "(resize_token_embeddings) and fine-tune",
            )

    def fingerprint(self, backend: str, precision: str, arithmetic: str = "") -> str:
        """16 hex digits over all that can change a score: the files, and what computes with them how."""
        files = [self.folder / "config.json", *self.weights]
        files += [self.folder / name for name in TOKENIZER_FILES if (self.folder / name).is_file()]
        tokens = self._tokenizer_source.identity
        computed = [
            backend,
            precision,
            *([arithmetic] if arithmetic else []),
            *([f"tokens:{tokens}"] if tokens else []),
        ]
        parts = [*computed, *(f"{path.name}:{_file_digest(path)}" for path in files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def find_checkpoint(model: str, *, allow_pickle: bool = False) -> Checkpoint:
    """Resolve `bundled`, a folder or a hub name, and check that it is a classifier that can be read safely.

    Raises:
        ModelError: Nothing there, not a classifier, no labels, a regression, unsafe or corrupt weights, no tokenizer,
            or custom code wanted.
    """
    folder = _locate(model, allow_pickle)
    config = _read_config(folder, model)
    _refuse_custom_code(config, model)
    weights = _find_weights(folder, model, allow_pickle)
    if not has_tokenizer(folder, config):
        raise ModelError(
            f"Model {model} has no tokenizer in {folder}",
            rule="tokenizer.json or a vocabulary that transformers can convert must lie beside the weights",
            next_step="save the tokenizer into the folder: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    labels = _labels(config, model)
    stored = (tensor_shapes(path).values() for path in weights if path.suffix == ".safetensors")
    parameters = sum(prod(shape) for shapes in stored for shape in shapes)
    return Checkpoint(model, folder, config, weights, labels, _activation(config, labels, model), parameters)


def _locate(model: str, allow_pickle: bool) -> Path:
    if model == "bundled":
        return _bundled()
    try:
        is_folder, is_there = Path(model).is_dir(), Path(model).exists()
    except OSError:  # a name that no file can have
        is_folder, is_there = False, True
    if is_folder:
        return Path(model).resolve()  # once: a registered model is a link that may be replaced while it is read
    if is_there or model.startswith((".", "/", "~")) or model.partition("@")[0].count("/") > 1:
        raise ModelError(
            f"Model {model} is not a folder",
            rule="a model is `bundled`, a folder with config.json and weights, or a hub name such as owner/name or "
            "owner/name@revision",
            next_step="check the path; workers must see it too",
        )
    return _fetch(model, allow_pickle)


def _bundled() -> Path:
    folders = sorted(path.parent for path in BUNDLED.glob("*/config.json"))
    if len(folders) != 1:
        raise ModelError(
            f"The bundled model is missing: {len(folders)} models in {BUNDLED}",
            rule="the installation carries exactly one",
            next_step="reinstall corpuscore, or name a model with --model",
        )
    return folders[0]


def _fetch(name: str, allow_pickle: bool) -> Path:
    """Files of a hub model in the local cache; the network is asked only for what is not there.

    Args:
        name: `owner/name`, or `owner/name@revision`: a branch, a tag or a commit.
        allow_pickle: Pickled weights, too.
    """
    import huggingface_hub

    repository, _, revision = name.partition("@")
    wanted = [*HUB_FILES, *(PICKLE_FILES if allow_pickle else ())]
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Model {name} is no local folder and could not be fetched from the hub ({type(error).__name__}: {error})",
            rule="a hub name needs the network, or a copy in the hub's cache",
            next_step="download it where there is a network, and give the folder",
        ) from error


def _read_config(folder: Path, model: str) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(
            f"Model {model}: no config.json in {folder}",
            rule="a checkpoint folder has config.json, weights and a tokenizer",
            next_step="check the path",
        )
    config = read_json(path, model)
    check_config(config, model)
    return {name: value for name, value in config.items() if value is not None}  # null says as much as nothing


def _refuse_custom_code(config: Mapping[str, Any], model: str) -> None:
    if config.get("auto_map"):
        raise ModelError(
            f"Model {model} wants to run its own code ({', '.join(sorted(config['auto_map']))})",
            rule="code that comes with a checkpoint is never run",
            next_step="use a model whose architecture transformers has built in",
        )


def _find_weights(folder: Path, model: str, allow_pickle: bool) -> tuple[Path, ...]:
    safe = _shards(folder, "model.safetensors", model)
    if safe:
        return safe
    pickled = _shards(folder, "pytorch_model.bin", model)
    if not pickled:
        raise ModelError(
            f"Model {model}: no weights in {folder}",
            rule="model.safetensors, or its shards with model.safetensors.index.json",
            next_step="check the path",
        )
    if not allow_pickle:
        raise ModelError(
            f"Model {model} has only pickled weights ({pickled[0].name})",
            rule="a pickle can run code, so only safetensors are read by default",
            next_step="convert them to safetensors, or pass --allow-pickle if you trust where they come from",
        )
    return pickled


def _shards(folder: Path, name: str, model: str) -> tuple[Path, ...]:
    """The one file of this name, or those that its index names, or none."""
    if (folder / name).is_file():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return ()
    weight_map = read_json(index, model).get("weight_map")
    named = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not all(isinstance(shard, str) and shard and Path(shard).name == shard for shard in named):
        raise ModelError(
            f"Model {model}: {index.name} names no files of its folder",
            rule="its weight_map says for each tensor which file beside it holds it",
            next_step="save the model again",
        )
    names = sorted(set(named))
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing:
        raise ModelError(f"Model {model}: weights named in {index.name} are missing: {', '.join(missing)}")
    return tuple(folder / shard for shard in names)


def _labels(config: Mapping[str, Any], model: str) -> tuple[str, ...]:
    """Names by id, as transformers reads them: two unnamed labels where the config of a classifier says nothing."""
    id2label = labels_by_id(config)
    if id2label:
        named = _named(id2label, model)
        if sorted(named) != list(range(len(named))):
            raise ModelError(
                f"Model {model}: ids in id2label are {sorted(named)}", rule="they count from 0 without gaps"
            )
        labels = tuple(named[index] for index in range(len(named)))
    elif any("SequenceClassification" in name for name in config.get("architectures") or ()):
        labels = tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    else:
        raise ModelError(
            f"Model {model} has no labels (architectures: {config.get('architectures')})",
            rule="a scorer needs a classification head and id2label in config.json",
            next_step="fine-tune it first: corpuscore train, or use a sequence-classification checkpoint",
        )
    if len(set(labels)) != len(labels):
        raise ModelError(f"Model {model}: labels {labels} repeat", rule="each label becomes a column of the table")
    return labels


def _named(id2label: Mapping[str, Any], model: str) -> dict[int, str]:
    """Labels by id.

    Raises:
        ModelError: An id is no number, a label no name, or there are more than may be.
    """
    numbered = all(key.isdecimal() and len(key) < len(str(MOST_LABELS)) for key in id2label)
    if not numbered or not all(isinstance(label, (str, int)) for label in id2label.values()):
        raise ModelError(
            f"Model {model}: id2label in config.json is {repr(id2label)[:100]}",
            rule=f"it names a label for each id from 0 on, fewer than {MOST_LABELS}",
            next_step="correct id2label in config.json",
        )
    return {int(key): str(label) for key, label in id2label.items()}


def _activation(config: Mapping[str, Any], labels: tuple[str, ...], model: str) -> Activation:
    """The rule of transformers' own text-classification pipeline.

    Source: transformers/pipelines/text_classification.py, TextClassificationPipeline.postprocess
    """
    problem = config.get("problem_type")
    if problem == "regression":
        raise ModelError(
            f"Model {model} is a regression",
            rule="scores are probabilities of labels",
            next_step="use a classifier (problem_type single_label_ or multi_label_classification)",
        )
    return "sigmoid" if problem == "multi_label_classification" or len(labels) == 1 else "softmax"


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: str, size_bytes: int, modified_ns: int) -> str:  # noqa: ARG001  (the key of the cache)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
