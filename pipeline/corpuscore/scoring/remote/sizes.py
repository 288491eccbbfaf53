"""Which texts go into one request: bounded in tokens (estimated), bytes and texts.

Tokens are estimated by letters; where the service says how many it used, by what it said. Requests that are not
answered in time get smaller, and grow again with those that are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from corpuscore.inference.metadata import ModelCard

#: Tokens of one request, where nothing else is said.
TOKENS = 4_096
#: Texts of one request at the most.
TEXTS = 256
#: Bytes of texts in one request: what gRPC's servers take of a message, where their owner says nothing else.
BYTES = 4 * 2**20
#: For what is in a request besides.
_ROOM = 2**16
#: Bytes that a text adds to its own.
_LENGTH_BYTES = 4
#: Letters of a token before a service has said anything; how fast what it says is believed.
_LETTERS_PER_TOKEN = 4.0
_BELIEVED = 0.1
_SMALLEST_TOKENS = 64
_GROWTH = 1.02


class Sizes:
    """Shared by the streams of a scorer; thread-safe.

    Args:
        card: What the service says.
        tokens: Of one request.
    """

    def __init__(self, card: ModelCard, tokens: int = TOKENS) -> None:
        self._most = float(tokens)
        self._tokens = float(tokens)
        self._cut = card.max_tokens if card.long_documents == "truncate" else 0
        self._texts = min(card.max_texts or TEXTS, TEXTS)
        self.document_bytes = card.max_bytes - _ROOM if card.max_bytes > 2 * _ROOM else 0
        self._bytes = min(self.document_bytes or BYTES - _ROOM, BYTES - _ROOM)
        self._per_letter = 1 / _LETTERS_PER_TOKEN
        self._changing = threading.Lock()

    @property
    def tokens(self) -> int:
        """Of one request now."""
        return int(self._tokens)

    def estimate(self, text: str) -> int:
        """Tokens of a text, the two that stand around it included."""
        tokens = int(len(text) * self._per_letter) + 2
        return min(tokens, self._cut) if self._cut else tokens

    def learn(self, texts: Sequence[str], tokens: int) -> None:
        """So many tokens were used of these texts; what was cut tells nothing."""
        letters = sum(map(len, texts))
        if letters and all(self.estimate(text) != self._cut for text in texts):
            with self._changing:
                self._per_letter += _BELIEVED * (tokens / letters - self._per_letter)

    def answered(self) -> None:
        """A request was answered in time."""
        if self._tokens < self._most:
            with self._changing:
                self._tokens = min(self._tokens * _GROWTH, self._most)

    def too_slow(self) -> None:
        """A request was not."""
        with self._changing:
            self._tokens = max(self._tokens / 2, _SMALLEST_TOKENS)

    def cut(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Indices of the texts of each request: like lengths together, since there are servers that pad."""
        group: list[int] = []
        tokens = size = 0
        for index in sorted(range(len(texts)), key=lambda at: len(texts[at])):
            adds = self.estimate(texts[index])
            weighs = len(texts[index].encode("utf-8", "surrogatepass")) + _LENGTH_BYTES
            full = tokens + adds > self.tokens or size + weighs > self._bytes or len(group) == self._texts
            if group and full:
                yield group
                group, tokens, size = [], 0, 0
            group.append(index)
            tokens, size = tokens + adds, size + weighs
        if group:
            yield group
