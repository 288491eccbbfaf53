"""Encodings other than UTF-8: which of them may be cut between any two lines, and bytes of the others as UTF-8.

In most encodings (latin-1, cp1252, koi8-r, euc-kr) the bytes of ASCII mean what they do in ASCII, wherever they stand.
So lines, delimiters and quotes are found as in UTF-8, at the same offsets, and records are decoded one by one. Others
(utf-16, utf-32, shift_jis, gb18030) are read from the object's start and turned into UTF-8 on the way; such an object
is one partition, and positions count the bytes of its text in UTF-8.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from functools import lru_cache

from corpuscore.oddities import Oddities

UTF8 = "utf-8"
_REPLACEMENT = "\ufffd"
#: What an object may begin with, which says its encoding; the longer ones first. No UTF-8 begins so.
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip


@lru_cache(maxsize=16)
def is_cuttable(encoding: str) -> bool:
    """Whether bytes below 128 are always ASCII, so that lines can be found without decoding what is between them."""
    if encoding == UTF8:
        return True
    ascii_bytes = bytes(range(128))
    pairs = (bytes([high, low]) for high in range(128, 256) for low in range(128))
    return ascii_bytes.decode(encoding, "replace") == ascii_bytes.decode() and all(
        pair.decode(encoding, "replace")[-1:] == chr(pair[1]) for pair in pairs
    )


def record_encoding(encoding: str) -> str:
    """The encoding that records have when they are found: others than those that can be cut are UTF-8 by then."""
    return encoding if is_cuttable(encoding) else UTF8


def encoding_in(head: bytes, encoding: str) -> str:
    """The encoding of an object that begins so: what its byte order mark says, else what the option does."""
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    return marked or encoding if encoding == UTF8 else encoding


def as_utf8(blocks: Iterable[bytes], encoding: str, uri: str, oddities: Oddities) -> Iterator[bytes]:
    """The blocks of an object, as UTF-8 where its encoding, or its byte order mark, is one that cannot be cut.

    What is no text in the encoding becomes U+FFFD, and is counted as an oddity.
    """
    decoder: codecs.IncrementalDecoder | None = None
    at = 0
    for number, block in enumerate(blocks):
        if not number:
            found = encoding_in(block, encoding)
            decoder = None if is_cuttable(found) else codecs.getincrementaldecoder(found)("replace")
        if decoder is None:
            yield block
            continue
        if text := _decoded(decoder, block, f"{uri}, byte {at}", oddities):
            yield text
        at += len(block)
    if decoder is not None and (text := _decoded(decoder, b"", f"{uri}, byte {at}", oddities, final=True)):
        yield text


def _decoded(
    decoder: codecs.IncrementalDecoder, block: bytes, where: str, oddities: Oddities, *, final: bool = False
) -> bytes:
    text = decoder.decode(block, final)
    if replaced := text.count(_REPLACEMENT):
        oddities.note("encoding", where, replaced)
    return text.encode("utf-8", "replace")
