"""What may go wrong between a client and an S3 server, and which requests it hits."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

Verb = Literal["GET", "HEAD", "PUT", "DELETE", "LIST", "CREATE", "PART", "COMPLETE", "ABORT", "UPLOADS"]

#: Faults beside a status with or without an S3 code, such as "503 SlowDown", "500" and "400 ExpiredToken".
FAULTS = {
    "reset": "the connection is reset half-way: in the answer's body, or where there is none, before it",
    "unsent": "the connection is reset before the server has seen the request",
    "truncated": "the answer's body ends half-way, and so does the connection",
    "shortened": "half of the answer's body, with a Content-Length that is right for it",
    "flipped": "the answer's body with one bit changed",
    "unread": "the request's body is not read for `lasting` seconds, then the connection ends",
    "stall": "half of the answer, then nothing for `lasting` seconds",
    "latency": "the answer comes `lasting` seconds late",
    "lost": "the server does what is asked, and the connection ends without an answer",
    "stale": "the answer to a listing is the first one that was ever given to it",
    "omitted": "a listing leaves out the keys that match",
}

_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What was asked: S3's verb, `bucket/key` (of a listing `bucket/prefix`), and the headers by lower-case name."""

    verb: str
    key: str
    target: str
    headers: dict[str, str]


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int


@dataclass(eq=False)
class Rule:
    """One fault: which requests it may hit, and how often it has.

    Attributes:
        fault: One of FAULTS, or a status with or without a code.
        verbs: Which; empty for all.
        key: Pattern that is searched in `bucket/key`; in listings that are "omitted", in the keys listed.
        probability: Of each request that matches.
        count: Requests that it hits at the most.
        skip: Requests that match and are spared first.
        until: time.monotonic() of its end.
        lasting: Seconds of a stall or of a late answer.
        when: A condition of one's own.
        injected: Requests that were hit.
    """

    fault: str
    verbs: frozenset[str]
    key: re.Pattern[str]
    probability: float
    count: float
    skip: int
    until: float
    lasting: float
    when: Callable[[Request], bool]
    random: random.Random
    injected: int = 0

    def hits(self, request: Request) -> bool:
        """Whether this request is one; counts it then."""
        if self.verbs and request.verb not in self.verbs:
            return False
        if self.fault in ("stale", "omitted") and request.verb != "LIST":
            return False
        if self.fault != "omitted" and not self.key.search(request.key):
            return False
        if time.monotonic() > self.until or self.injected >= self.count or not self.when(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.random.random() >= self.probability:
            return False
        self.injected += 1
        return True


def request_of(method: str, target: str, headers: dict[str, str]) -> Request:
    """What a request of HTTP asks for, in S3's terms."""
    parts = urlsplit(target)
    asked = parse_qs(parts.query, keep_blank_values=True)
    path = unquote(parts.path).lstrip("/")
    verb = method
    if method == "GET" and "uploads" in asked:
        verb = "UPLOADS"
    elif method == "GET" and ("list-type" in asked or "prefix" in asked):
        verb = "LIST"
        path = f"{path.rstrip('/')}/{asked.get('prefix', [''])[0]}"
    elif method == "POST":
        verb = "CREATE" if "uploads" in asked else "COMPLETE" if "uploadId" in asked else "DELETE"
    elif "uploadId" in asked:
        verb = {"PUT": "PART", "DELETE": "ABORT"}.get(method, method)
    return Request(verb, path, target, headers)


def without(answer: Answer, key: re.Pattern[str]) -> Answer:
    """A listing without the objects whose keys match."""

    def kept(found: re.Match[bytes]) -> bytes:
        named = _KEY.search(found[0])
        return b"" if named and key.search(unquote(named[1].decode())) else found[0]

    body = _CONTENTS.sub(kept, answer.body)
    return Answer(answer.status, answer.headers, body, len(body))
