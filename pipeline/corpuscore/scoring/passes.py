"""The steps of scoring around a backend, for whoever decides what goes through it together and when.

    texts -> tokens_of -> windows -> (some of them) forward -> settled: one row a document

What is raised for many texts is tried in halves, down to the one that fails by itself.
Shape suffixes: D documents, L labels, S sequences (windows of documents), T tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial

import numpy as np
import numpy.typing as npt

from corpuscore.errors import JobError
from corpuscore.records import LongDocuments, ScorerInfo, Skipped
from corpuscore.scoring import packing
from corpuscore.scoring.faults import PLAIN_TEXT, Fault, Suspicion, tried
from corpuscore.scoring.scorer import Backend, ByCore, Pipelined, Tokens

Rows = npt.NDArray[np.float32]
#: Tokens of some texts, and why the others have none, by index.
Found = tuple[Tokens, dict[int, Skipped]]


class Passes:
    """A backend with its window; thread-safe.

    Args:
        backend: The loaded model.
        max_tokens: Window of the model in tokens, special tokens included.
        long_documents: What becomes of longer ones.
        token_budget: Tokens of one forward pass; None: what suits the backend.

    Attributes:
        token_budget: Tokens of one forward pass at the most, but for a longer window.
        pipelined: Whether the next pass may be started while the last one runs.
        at_once: Passes that are under way at once, each on a core of its own; 1: a pass has all of them.

    Raises:
        JobError: max_tokens leaves no room for text.
    """

    def __init__(
        self, backend: Backend, *, max_tokens: int, long_documents: LongDocuments, token_budget: int | None = None
    ) -> None:
        _check_window(backend, max_tokens)
        self._backend = backend
        self._max_tokens = max_tokens
        self._long_documents = long_documents
        self.token_budget = max(token_budget or backend.token_budget, max_tokens)
        self.pipelined = isinstance(backend, Pipelined)
        self.at_once = 1
        self._forward = backend.forward
        # Those who share a model share the cores pass by pass: while one is in it, the others read and tokenize.
        self._pass: AbstractContextManager[object] = nullcontext() if self.pipelined else threading.Lock()
        plain = partial(backend.tokenize, [PLAIN_TEXT], max_tokens)
        self._tokenizing = Suspicion(backend.info.model, "The tokenizer", plain)
        self._scoring = Suspicion(backend.info.model, "The forward pass", lambda: backend.forward(plain()))

    def on_cores(self) -> Passes:
        """The same with a core for each pass, and smaller ones, where the backend is as good at that.

        Passes that begin whenever a core is free leave none idle; one on all of them ends with the last.
        """
        if not isinstance(self._backend, ByCore) or self._backend.cores == 1:
            return self
        made = copy(self)
        made.at_once, made._forward, made._pass = self._backend.cores, self._backend.forward_on_core, nullcontext()
        made.token_budget = max(self.token_budget // made.at_once, self._max_tokens)
        return made

    @property
    def info(self) -> ScorerInfo:
        """Labels, activation, fingerprint, resolved precision."""
        return self._backend.info

    def tokens_of(self, texts: list[str]) -> Found:
        """Tokens of the texts that have some, and why the others have none, by index: each was tried by itself.

        Raises:
            ModelError: No text can be tokenized.
        """
        limit = self._max_tokens if self._long_documents == "truncate" else None
        tokens = tried(partial(self._backend.tokenize, texts, limit))
        if not isinstance(tokens, Fault):
            self._tokenizing.passed()
            return tokens, {}
        if len(texts) == 1:
            self._tokenizing.failed(tokens)
            return Tokens(np.empty(0, np.int32), np.zeros(1, np.int64)), {0: tokens.of(0)}
        middle = len(texts) // 2
        (first, why), (second, later) = self.tokens_of(texts[:middle]), self.tokens_of(texts[middle:])
        return packing.concatenate([first, second]), why | {middle + index: reason for index, reason in later.items()}

    def windows(self, tokens: Tokens) -> tuple[Tokens, npt.NDArray[np.int64]]:
        """The sequences that go through the model, and int64 [D + 1] offsets of each document's; see packing."""
        return packing.windows(tokens, self._max_tokens, self._backend.special_tokens)

    def start(self, tokens: Tokens) -> Callable[[], Rows]:
        """Begin a pass where the backend can have several under way; the result is for `finish`, and may raise."""
        if not len(tokens.lengths):
            return lambda: np.empty((0, len(self.info.labels)), np.float32)
        if isinstance(self._backend, Pipelined):
            started = tried(partial(self._backend.submit, tokens))
            if not isinstance(started, Fault):  # else `finish` meets it again, and halves
                return started
        return lambda: self._forward(tokens)

    def finish(
        self, tokens: Tokens, result: Callable[[], Rows], watch: AbstractContextManager[object] | None = None
    ) -> tuple[Rows, dict[int, Skipped]]:
        """The rows of a pass that was started, in the sequences' order; NaN, and why, where one fails by itself.

        Args:
            tokens: That were started.
            result: From `start`.
            watch: Entered while the pass has the model, not while it waits for it.

        Raises:
            ModelError: No text can be scored.
        """
        with self._pass, watch or nullcontext():
            rows_SL = tried(result)
            if isinstance(rows_SL, Fault):
                return self._halved(tokens)
            if len(rows_SL):
                self._scoring.passed()
            return rows_SL, {}

    def _halved(self, tokens: Tokens) -> tuple[Rows, dict[int, Skipped]]:
        """Run the pass in halves, and theirs if need be; a sequence that fails alone is marked."""
        rows_SL = np.full((len(tokens.lengths), len(self.info.labels)), np.nan, np.float32)
        failed: dict[int, Skipped] = {}
        waiting = [np.arange(len(tokens.lengths))]
        while waiting:
            members = waiting.pop()
            some = packing.take(tokens, members)
            found = tried(partial(self._forward, some))
            if not isinstance(found, Fault):
                rows_SL[members] = found
                self._scoring.passed()
            elif len(members) == 1:
                failed[int(members[0])] = found.of(len(some.ids))
                self._scoring.failed(found)
            else:
                middle = len(members) // 2
                waiting += [members[middle:], members[:middle]]
        return rows_SL, failed

    def settled(
        self, rows_SL: Rows, offsets_D: npt.NDArray[np.int64], failed: dict[int, Skipped]
    ) -> tuple[Rows, dict[int, Skipped]]:
        """One row a document, pooled over its windows, and why a document has none; both by documents.

        Args:
            rows_SL: Of all windows.
            offsets_D: From `windows`.
            failed: By window.
        """
        rows_DL = packing.pool(rows_SL, offsets_D, self._long_documents)
        why = {int(np.searchsorted(offsets_D, window, side="right")) - 1: reason for window, reason in failed.items()}
        return rows_DL, why


def _check_window(backend: Backend, max_tokens: int) -> None:
    if max_tokens <= sum(backend.special_tokens):
        raise JobError(
            f"--max-tokens {max_tokens}",
            rule=f"{sum(backend.special_tokens)} of them are special tokens, and at least one must be left for text",
        )
