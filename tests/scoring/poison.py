"""Texts that end the process which tokenizes them, in workers and in the processes that they start.

A `sitecustomize` module on PYTHONPATH wraps the tokenizer of every Python that starts then.
"""

from __future__ import annotations

from pathlib import Path

import pytest

#: What a text says in capitals, and what happens to the process that comes by it.
KINDS = {
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGABRT": "os.abort()",
    "EXIT": "os._exit(3)",
    "MEMORY": "hold = bytearray(2**30); hold[::4096] = hold[1::4096]; time.sleep(600)",
    "HANG": "time.sleep(600)",
}

_SITECUSTOMIZE = """
import os, signal, sys, time
from corpuscore.scoring.tokenizer import TextTokenizer
from corpuscore.corpus.reader import DocumentReader

KINDS = {kinds!r}
encode, iterate = TextTokenizer.encode, DocumentReader.__iter__


def poisoned(self, texts, max_tokens):
    for text in texts:
        for word, action in KINDS.items():
            if "poison " + word in text:
                exec(action)
        if "poison TOGETHER" in text and len(texts) > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
    return encode(self, texts, max_tokens)


def read(self):
    for batch in iterate(self):
        if any("poison READER" in (text or "") for text in batch.column("text").to_pylist()):
            print("a broken page", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        yield batch


TextTokenizer.encode, DocumentReader.__iter__ = poisoned, read
{more}
"""


def spike(folder: Path, patch: pytest.MonkeyPatch, more: str = "") -> None:
    """Poison every Python process that starts from here on.

    Args:
        folder: Where the module is put.
        more: Statements that run at the start of each.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(kinds=KINDS, more=more))
    patch.setenv("PYTHONPATH", str(folder), prepend=":")
