"""Asking transformers for the tokenizer of a folder, once: the answer is kept in the user's cache for all processes.

An answer is named by a digest of all that it depends on: the files, and the versions of transformers and tokenizers.
It is written whole or not at all, so that workers may ask at the same time; where no file can be written, each process
asks for itself. The model's folder is only read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from corpuscore.errors import ModelError
from corpuscore.files import write_whole
from corpuscore.scoring.kernels.build import cache_folder
from corpuscore.scoring.tokenization.files import SENTENCEPIECE, TOKENIZER_FILES, Side, TokenizerFiles

_LOG = logging.getLogger(__name__)
#: Another number wherever an answer to the same question would be kept in another form.
_REVISION = 1
#: What must not be a class's own for the Rust tokenizer inside it to give the same tokens.
_METHODS = ("__call__", "_encode_plus")


@dataclass(frozen=True, slots=True)
class Answer:
    """What AutoTokenizer makes of a folder.

    Attributes:
        state: The Rust tokenizer, as text of a tokenizer.json; empty where the tokenizer is written in Python.
        side: Where long texts are cut.
        splits_special_tokens: Whether special tokens that are written in a text are text.
        script: The tokenizer, where it is written in Python.
    """

    state: str
    side: Side
    splits_special_tokens: bool
    script: Script | None = field(default=None, compare=False)

    @property
    def identity(self) -> str:
        """Tells apart answers that give other tokens."""
        said = f"{self.state}\n{self.side}\n{self.splits_special_tokens}"
        if self.script is not None:
            said += f"\n{self.script.name}\n{version('transformers')}"
        return hashlib.sha256(said.encode()).hexdigest()


class Script:
    """A tokenizer that is written in Python, one text after the other.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # they keep caches, and promise nothing about threads
        self.name = type(tokenizer).__name__
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.added: dict[str, int] = tokenizer.get_added_vocab()

    def ids(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Ids of each whole text, with or without the special tokens around it."""
        with self._lock:
            found = self._tokenizer(
                list(texts), add_special_tokens=special, truncation=False, padding=False, verbose=False
            )
        return [list(map(int, ids)) for ids in found["input_ids"]]


def ask(files: TokenizerFiles) -> Answer:
    """The answer that is kept, or else transformers'.

    Raises:
        ModelError: transformers makes no tokenizer of this folder, or needs a package that is not there.
    """
    kept = _kept_at(files)
    if kept is not None:
        with suppress(OSError, ValueError, TypeError):  # nothing there, or not what was written
            return Answer(**json.loads(kept.read_bytes()))
    answer = _answer(files)
    if kept is not None and answer.script is None:
        said = {"state": answer.state, "side": answer.side, "splits_special_tokens": answer.splits_special_tokens}
        with suppress(OSError):  # the next process asks again
            write_whole(kept, json.dumps(said).encode())
    return answer


def _kept_at(files: TokenizerFiles) -> Path | None:
    """The file of the answer, where there is a folder for it."""
    digest = hashlib.sha256(f"{_REVISION} {version('transformers')} {version('tokenizers')}".encode())
    for name in ("config.json", *TOKENIZER_FILES):
        if (files.folder / name).is_file():
            digest.update(name.encode() + hashlib.sha256((files.folder / name).read_bytes()).digest())
    try:
        return cache_folder().with_name("tokenizers") / f"{digest.hexdigest()[:32]}.json"
    except Exception:  # no home, and no folder that is this user's alone: the kernels have none either
        return None


def _answer(files: TokenizerFiles) -> Answer:
    _check_packages(files)
    try:
        tokenizer = _auto_tokenizer(files.folder)
    except Exception as error:  # each of its many classes fails in its own way
        raise ModelError(
            f"Model {files.model}: transformers makes no tokenizer of the files in {files.folder} "
            f"({type(error).__name__}: {str(error)[:300]})",
            rule="a scorer has the tokens of AutoTokenizer, so its files must fit together",
            next_step="look at tokenizer_class in tokenizer_config.json, or save the tokenizer again",
        ) from error
    rust = _rust_state(tokenizer)
    script = None if rust else Script(tokenizer)
    if script is not None:
        _LOG.warning("Model %s has a tokenizer that is written in Python (%s): slower.", files.model, script.name)
    return Answer(rust, cast(Side, tokenizer.truncation_side), bool(tokenizer.split_special_tokens), script)


def _auto_tokenizer(folder: Path) -> Any:
    import transformers  # takes seconds, and most tokenizers can do without

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _rust_state(tokenizer: Any) -> str:
    """The Rust tokenizer inside as text; empty where there is none, or Python does some of the work."""
    from transformers import PreTrainedTokenizerFast as Fast

    kind = type(tokenizer)
    if not issubclass(kind, Fast) or any(getattr(kind, name) is not getattr(Fast, name) for name in _METHODS):
        return ""
    try:
        return str(tokenizer.backend_tokenizer.to_str())
    except Exception:  # the library's own, for a part that is written in Python
        return ""


def _check_packages(files: TokenizerFiles) -> None:
    """Name the package that a vocabulary needs; transformers' own words for it lead elsewhere."""
    if not _is_installed("transformers"):
        raise ModelError(
            f"Model {files.model}: only transformers knows what the files of its tokenizer mean, and it is not here",
            rule="tokenizer.json alone will do where the settings beside it say the same",
            next_step="plan where transformers is installed, or save the tokenizer again with AutoTokenizer",
        )
    found = [name for name in SENTENCEPIECE if (files.folder / name).is_file()]
    missing = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
    if found and missing and not files.state:
        raise ModelError(
            f"Model {files.model}: its tokenizer is {found[0]}, and {' and '.join(missing)} is not installed",
            rule="a SentencePiece vocabulary is converted with the package that made it",
            next_step="install corpuscore[sentencepiece], or save tokenizer.json beside the weights",
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # the package that would hold it is not there, or it was taken out
        return False
