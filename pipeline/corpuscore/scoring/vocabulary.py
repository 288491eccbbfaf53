"""Tokenizers of checkpoints that were saved without tokenizer.json: transformers converts their vocabulary."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import transformers

from corpuscore.errors import ModelError


def convert_tokenizer(folder: Path, model: str) -> tokenizers.Tokenizer:
    """The Rust tokenizer that transformers builds from the vocabulary files in the folder.

    Raises:
        ModelError: There is none for this vocabulary, or a file is broken.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        rust = tokenizer.backend_tokenizer
    except Exception as error:  # each of its many converters fails in its own way
        raise ModelError(
            f"Model {model}: the vocabulary in {folder} cannot be converted ({type(error).__name__}: {error})",
            rule="a tokenizer must be one that the tokenizers library can run",
            next_step="save tokenizer.json beside the weights",
        ) from error
    if not isinstance(rust, tokenizers.Tokenizer):
        raise ModelError(
            f"Model {model}: its tokenizer is written in Python", next_step="save tokenizer.json beside it"
        )
    return rust
