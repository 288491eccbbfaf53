"""What is raised for a pack is one document's fault, until it turns out to be the model's.

An engine tries what failed in halves, down to the document that fails by itself: it becomes a reject, with the error's
words. Where many in a row fail by themselves, a text of our own is tried: if it fails as well, so would all others, and
the run ends with one message; if not, twice as many may fail before it is tried again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from corpuscore.errors import CorpuscoreError, ModelError
from corpuscore.records import FAILED, OUT_OF_MEMORY, Skipped

T = TypeVar("T")

#: A text that every model can score.
PLAIN_TEXT = "This is a text of ten words, and nothing else."
#: Sequences in a row that fail by themselves, before the model is suspected.
LONE_FAILURES = 8
#: Letters of an error's words that are kept; longer messages tell of data.
_LETTERS = 300
_NEXT_STEP = "load it once with transformers and score a text; save it again, or use another device"
#: What differs from process to process.
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")


@dataclass(frozen=True, slots=True)
class Fault:
    """What was raised, without the error itself, which would keep the memory of the pass.

    Attributes:
        words: Type and message, the same in every run; empty where memory ended.
    """

    words: str

    def __str__(self) -> str:
        return self.words or "out of memory"

    def of(self, tokens: int) -> Skipped:
        """Why a document of so many tokens is a reject."""
        if self.words:
            return Skipped(FAILED, self.words)
        return Skipped(OUT_OF_MEMORY, f"out of memory at {tokens} tokens")


def tried(run: Callable[[], T]) -> T | Fault:
    """What a step gives, or what it raised that may be one document's fault.

    Raises:
        CorpuscoreError: Errors of our own concern all documents.
    """
    try:
        return run()
    except CorpuscoreError:
        raise
    except MemoryError:
        return Fault("")
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of the Rust tokenizer
            raise
        return Fault(words_of(error))


def words_of(error: BaseException) -> str:
    """Type and message of an error in one line that is the same in every run."""
    said = _ADDRESS.sub("0x...", " ".join(str(error).split()))[:_LETTERS]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class Suspicion:
    """Counts what fails by itself; thread-safe.

    Args:
        model: Its name, for the message.
        step: What fails, such as `the tokenizer`.
        probe: Does the step with PLAIN_TEXT.
        next_step: What to do about a model that fails.
    """

    def __init__(self, model: str, step: str, probe: Callable[[], object], next_step: str = _NEXT_STEP) -> None:
        self._model, self._step, self._probe, self._next_step = model, step, probe, next_step
        self._failed, self._most = 0, LONE_FAILURES
        self._counting = threading.Lock()

    def passed(self) -> None:
        """Something went well."""
        self._failed = 0

    def failed(self, fault: Fault) -> None:
        """A sequence failed by itself.

        Raises:
            ModelError: So does every other.
        """
        with self._counting:
            self._failed += 1
            if self._failed < self._most:
                return
            found = tried(self._probe)
            if isinstance(found, Fault):
                raise ModelError(
                    f"{self._step} of {self._model} fails for every text: the last {self._failed} failed by themselves "
                    f"({fault}), and so does {PLAIN_TEXT!r} ({found})",
                    rule="A model scores each text by itself",
                    next_step=self._next_step,
                )
            self._failed, self._most = 0, 2 * self._most
