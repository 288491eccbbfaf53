"""Whose texts go next: the order in which requests share the tokenizer and the model. No threads here.

A request that has not had a turn goes before those that have, but for half of each pass, which is theirs; whoever has
had a turn goes to the end of the others. So a few texts are in the next pass, however long a request is under way, and
whoever has begun goes on, however many come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from corpuscore.scoring import packing
from corpuscore.service.requests import Part, Request, Share

#: Texts that are tokenized in one call.
TOKENIZE_TEXTS = 256
#: A turn in a pass is this part of its tokens.
SHARES = 8


@dataclass(slots=True)
class Turns:
    """Requests in their order; guarded by its user's lock.

    Attributes:
        budget: Tokens of a pass.
        tokens: That are ready to be taken.
        sequences: Of these.
    """

    budget: int
    tokens: int = 0
    sequences: int = 0
    _texts: deque[Request] = field(default_factory=deque)
    _fresh: deque[Request] = field(default_factory=deque)
    _others: deque[Request] = field(default_factory=deque)

    @property
    def most_sequences(self) -> int:
        """Of a pass, as buffers of fixed size hold them."""
        return max(1, self.budget // packing.TOKENS_A_SEQUENCE)

    @property
    def full(self) -> bool:
        """Whether a pass could not hold more than what is ready."""
        return self.tokens >= self.budget or self.sequences >= self.most_sequences

    def oldest(self) -> float | None:
        """When the first of those that are ready entered; 0 where one has had a turn; None where none is ready."""
        if not self.sequences:
            return None
        return 0.0 if self._others else min((request.entered for request in self._fresh), default=0.0)

    def add(self, request: Request) -> None:
        """Let a request wait for the tokenizer."""
        self._texts.append(request)

    def texts(self, now: float) -> list[tuple[Request, int, int]]:
        """What is tokenized next: requests, and from which to which of their texts. A long one goes on after others."""
        chosen: list[tuple[Request, int, int]] = []
        room = TOKENIZE_TEXTS
        while room and self._texts:
            request = self._texts.popleft()
            if _unwanted(request, now):
                continue
            start = request.cut
            request.cut = min(start + room, len(request.texts))
            room -= request.cut - start
            chosen.append((request, start, request.cut))
            if request.cut < len(request.texts):
                self._texts.append(request)
        return chosen

    def ready(self, part: Part) -> None:
        """A part waits for the model."""
        request = part.request
        if request.gone:
            return
        if not request.ready:
            (self._others if request.served else self._fresh).append(request)
        request.ready.append(part)
        self.tokens += part.tokens_left
        self.sequences += len(part.order_S)

    def drop(self, request: Request) -> None:
        """Nobody waits for a request: what it has here goes."""
        request.gone = True
        for part in request.ready:
            self.tokens -= part.tokens_left
            self.sequences -= len(part.order_S) - part.taken
        request.ready.clear()
        request.texts = []

    def take(self, now: float, passes: int = 1) -> list[Share]:
        """What shares the next pass; nothing where nobody has anything ready.

        Args:
            now: On the clock of time.monotonic().
            passes: That may begin now, and share what is ready.
        """
        chosen: list[Share] = []
        size = min(self.budget, -(-self.tokens // max(1, passes)))
        room, places = size, self.most_sequences
        begun = len(self._others) if self._fresh else 0  # who is there for the first half
        while places:
            turn = self._others if begun > 0 and 2 * room > size else self._fresh or self._others
            if not turn:
                break
            begun -= 1
            request = turn.popleft()
            if _unwanted(request, now):
                self.drop(request)
            if not request.ready:
                continue
            if chosen and request.ready[0].next_length > room:
                turn.appendleft(request)
                break
            for share in self._turn(request, min(room, max(1, size // SHARES)), places):
                room -= share.tokens
                places -= share.stop - share.start
                chosen.append(share)
            request.served = True
            if request.ready:
                self._others.append(request)
            if room <= 0:
                break
        self.tokens -= sum(share.tokens for share in chosen)
        self.sequences -= sum(share.stop - share.start for share in chosen)
        return chosen

    def _turn(self, request: Request, tokens: int, sequences: int) -> list[Share]:
        """A request's next sequences, of several of its parts where these are short; one at the least."""
        shares: list[Share] = []
        while request.ready and sequences > 0:
            part = request.ready[0]
            if shares and part.next_length > tokens:
                break
            share = part.take(tokens, sequences)
            shares.append(share)
            tokens -= share.tokens
            sequences -= share.stop - share.start
            if part.taken == len(part.order_S):
                request.ready.popleft()
            else:
                break
        return shares


def _unwanted(request: Request, now: float) -> bool:
    return request.gone or (request.deadline is not None and now >= request.deadline)
