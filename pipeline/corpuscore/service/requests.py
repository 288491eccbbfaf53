"""What one client waits for, and the parts of it that go through the model.

    Request -> Part: some of its texts, tokenized -> Share: what one pass takes of a part

Shape suffixes: D documents, L labels, S sequences (windows of documents).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpuscore.records import Skipped
from corpuscore.scoring.passes import Passes, Rows
from corpuscore.scoring.scorer import Scores, Tokens


class Request:
    """What one client waits for.

    Args:
        texts: As they came.
        labels: That the model has.
        size: Bytes of the texts in memory.
        entered: When, on the clock of time.monotonic().
        deadline: On the same clock; None: no hurry.
        answer: Gets the scores.

    Attributes:
        count: Texts as they came.
        texts: The distinct ones.
        cut: Of these, how many have gone to the tokenizer.
        noted: And how many have come back.
        ready: Parts with sequences that have not been taken.
        served: It has had a turn in a pass.
        waiting: The model has not had all of it.
        gone: Nobody waits for it any more.
    """

    __slots__ = (
        "_failed", "_places", "_probabilities_DL", "_settled", "_tokens_D", "_truncated_D", "answer", "count",
        "cut", "deadline", "entered", "gone", "noted", "ready", "served", "size", "texts", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        texts: list[str],
        labels: int,
        size: int,
        entered: float,
        deadline: float | None,
        answer: asyncio.Future[Scores],
    ) -> None:
        self.texts, self._places = _distinct(texts)
        self.count = len(texts)
        self.size, self.entered, self.deadline, self.answer = size, entered, deadline, answer
        self.gone = self.served = False
        self.waiting = True
        self.cut = self.noted = self._settled = 0
        self.ready: deque[Part] = deque()
        self._failed: dict[int, Skipped] = {}
        self._probabilities_DL = np.empty((len(self.texts), labels), np.float32)
        self._tokens_D = np.zeros(len(self.texts), np.int32)
        self._truncated_D = np.zeros(len(self.texts), np.bool_)

    def note(self, at: int, tokens: Tokens, failed: Collection[int]) -> npt.NDArray[np.intp]:
        """Write down what the tokenizer made of some texts; returns where the rows of those with tokens belong."""
        places = np.arange(at, at + len(tokens.lengths) + len(failed))
        if failed:
            places = np.delete(places, list(failed))
        self._tokens_D[places] = tokens.lengths
        if tokens.truncated is not None:
            self._truncated_D[places] = tokens.truncated
        return places

    def lose(self, failed: dict[int, Skipped]) -> None:
        """Write down why some of the distinct texts have no tokens."""
        self._failed |= failed
        self._probabilities_DL[list(failed)] = np.nan
        self._settled += len(failed)

    def settle(self, places: npt.NDArray[np.intp], rows_DL: Rows, failed: dict[int, Skipped]) -> None:
        """Write down rows of the model; a document that failed has none."""
        self._probabilities_DL[places] = rows_DL
        for index, why in failed.items():
            self._probabilities_DL[places[index]] = np.nan
            self._failed[int(places[index])] = why
        self._settled += len(places)

    @property
    def taken(self) -> bool:
        """Whether the model has had all of it, or has it now."""
        return self.noted == len(self.texts) and not self.ready

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._settled == len(self.texts)

    def scores(self) -> Scores:
        """The answer, in the order of the texts as they came."""
        if self._places is None:
            return Scores(self._probabilities_DL, self._tokens_D, self._truncated_D, self._failed)
        at = self._places
        failed = {index: self._failed[place] for index, place in enumerate(at.tolist()) if place in self._failed}
        return Scores(self._probabilities_DL[at], self._tokens_D[at], self._truncated_D[at], failed)


def _distinct(texts: list[str]) -> tuple[list[str], npt.NDArray[np.intp] | None]:
    """Each text once, and where each text as it came is among these; None where all differ."""
    seen = dict.fromkeys(texts)
    if len(seen) == len(texts):
        return texts, None
    index = {text: place for place, text in enumerate(seen)}
    return list(seen), np.fromiter((index[text] for text in texts), np.intp, len(texts))


class Part:
    """Some tokenized texts of one request, the longest first.

    Attributes:
        tokens: Their windows.
        order_S: In which these are taken.
        taken: How many have been.
    """

    __slots__ = (
        "_ends_S", "_failed", "_left", "_offsets_D", "_places", "_rows_SL", "order_S", "request", "taken", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        places: npt.NDArray[np.intp],
        tokens: Tokens,
        offsets_D: npt.NDArray[np.int64],
        labels: int,
    ) -> None:
        self.request, self.tokens = request, tokens
        self._places, self._offsets_D = places, offsets_D
        lengths = tokens.lengths
        self.order_S = np.argsort(-lengths, kind="stable")
        self._ends_S = np.cumsum(lengths[self.order_S])
        self._rows_SL = np.empty((len(lengths), labels), np.float32)
        self._failed: dict[int, Skipped] = {}
        self._left = len(lengths)
        self.taken = 0

    @property
    def tokens_left(self) -> int:
        """Tokens that have not been taken."""
        return int(self._ends_S[-1]) - self._before(self.taken)

    @property
    def next_length(self) -> int:
        """Tokens of the sequence that is next."""
        return self._before(self.taken + 1) - self._before(self.taken)

    def _before(self, sequences: int) -> int:
        return int(self._ends_S[sequences - 1]) if sequences else 0

    def take(self, tokens: int, sequences: int) -> Share:
        """The next sequences within so many tokens, and so many of them; one at the least."""
        start, base = self.taken, self._before(self.taken)
        stop = int(np.searchsorted(self._ends_S, base + tokens, side="right"))
        self.taken = min(max(stop, start + 1), start + sequences, len(self.order_S))
        return Share(self, start, self.taken, self._before(self.taken) - base)

    def documents(self, sequences: npt.NDArray[np.int64]) -> int:
        """How many documents begin with one of these sequences."""
        if len(self._offsets_D) == len(self.order_S) + 1:
            return len(sequences)
        return int(np.isin(sequences, self._offsets_D[:-1]).sum())

    def settle(
        self, passes: Passes, sequences: npt.NDArray[np.int64], rows_SL: Rows, failed: dict[int, Skipped]
    ) -> dict[int, Skipped]:
        """Write down rows of the model; with the last of them, the request gets those of its documents.

        Returns:
            Why some of these documents have none.
        """
        self._rows_SL[sequences] = rows_SL
        self._failed |= failed
        self._left -= len(sequences)
        if self._left:
            return {}
        rows_DL, why = passes.settled(self._rows_SL, self._offsets_D, self._failed)
        self.request.settle(self._places, rows_DL, why)
        return why


@dataclass(slots=True)
class Share:
    """A part's sequences in one pass: order_S[start:stop], which have so many tokens."""

    part: Part
    start: int
    stop: int
    tokens: int

    @property
    def sequences(self) -> npt.NDArray[np.int64]:
        """Which these are."""
        return self.part.order_S[self.start : self.stop]
