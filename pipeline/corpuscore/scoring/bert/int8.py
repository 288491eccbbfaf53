"""int8 behind a gate: as many products in int8 as a measured bound on the change of probabilities allows.

The same sequences go through fp32 and int8. Where the 99.9th percentile of the change in a probability is over the
limit, the products that read what an activation function left, in which few large values hide many small ones, go back
to fp32, worst first; where that does not help, everything does. What was decided and measured is logged.

Shape suffixes: S sequences, L labels, T tokens.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpuscore.scoring.bert.encoder import PRODUCTS, CpuEncoder, Ids, Network, Offsets
from corpuscore.scoring.weights.arrays import Floats

_LOG = logging.getLogger(__name__)

#: What int8 may change a probability by, at the 99.9th percentile.
LIMIT = 0.02
#: The gate sees few texts where a run has many, so it asks for more than the limit says.
MARGIN = 0.75

Pairs = frozenset[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Gated:
    """An encoder that passed.

    Attributes:
        encoder: Ready to run.
        int8: The (layer, product) pairs that run in int8; empty where the gate refused it.
        change: 99.9th percentile of the change of a probability over the gate's sequences; 0 in fp32.
    """

    encoder: CpuEncoder
    int8: Pairs
    change: float


@dataclass(frozen=True, slots=True)
class _Gate:
    """The network, the sequences to judge it by, and what fp32 says of them."""

    network: Network
    ids_T: Ids
    offsets: Offsets
    probabilities: Callable[[Floats], Floats]
    threads: int
    largest: Floats
    exact_SL: Floats

    def try_int8(self, pairs: Pairs) -> Gated:
        encoder = CpuEncoder(self.network, pairs, self.largest)
        rounded_SL = self.probabilities(encoder.logits(self.ids_T, self.offsets, threads=self.threads))
        return Gated(encoder, pairs, float(np.quantile(np.abs(rounded_SL - self.exact_SL), 0.999)))


def gated_int8(
    network: Network,
    ids_T: Ids,
    offsets: Offsets,
    probabilities: Callable[[Floats], Floats],
    *,
    threads: int,
    limit: float = LIMIT,
) -> Gated:
    """The fastest mix of int8 and fp32 whose probabilities stay near those of fp32.

    Args:
        network: What to run.
        ids_T: Tokens to judge by, like those to be scored; a few thousand.
        offsets: Their sequences, as for CpuEncoder.logits.
        probabilities: Logits to probabilities [S, L].
        threads: Threads to measure with.
        limit: Of the change of a probability at the 99.9th percentile.
    """
    fp32 = CpuEncoder(network)
    logits_SL, largest = fp32.observe(ids_T, offsets, threads=threads)
    gate = _Gate(network, ids_T, offsets, probabilities, threads, largest, probabilities(logits_SL))
    last = 0.0
    for pairs in _ladder(gate, network.layers):
        found = gate.try_int8(pairs)
        if found.change <= limit * MARGIN:
            _announce(found, network.layers, limit)
            return found
        last = found.change
    _LOG.warning(
        "int8 would change probabilities by %.4f (99.9th percentile; at most %.4f is let through): all in fp32",
        last,
        limit * MARGIN,
    )
    return Gated(fp32, frozenset(), 0.0)


def _ladder(gate: _Gate, layers: int) -> Iterator[Pairs]:
    """Mixes to try, fastest first: all, then without the worst 1, 2, 4, ... of the products after the activation."""
    everything = frozenset(itertools.product(range(layers), PRODUCTS))
    yield everything
    alone = {pair: gate.try_int8(frozenset({pair})).change for pair in everything if pair[1] == "down"}
    worst = sorted(alone, key=lambda pair: (-alone[pair], pair))
    for count in (2**power for power in range(layers.bit_length())):
        yield everything - frozenset(worst[:count])
    yield everything - frozenset(worst)


def _announce(found: Gated, layers: int, limit: float) -> None:
    _LOG.info(
        "int8 in %d of %d products; probabilities change by %.4f at the 99.9th percentile (limit %.4f)",
        len(found.int8),
        layers * len(PRODUCTS),
        found.change,
        limit,
    )


#: Calibration texts.
_TEXTS = 240
_OPENINGS = (
    *("I think", "Honestly,", "My sister said", "According to the report,", "We all hoped that", "Nobody told me"),
    *("It is strange how", "Last winter", "Thank you so much!", "What a day:", "Wow,", "The minister announced that"),
)
_MIDDLES = (
    *("the new bridge opens in May", "this is the worst film of the year", "she finally won the match"),
    *("they forgot the keys again", "prices fell by 12% in a week", "you could have warned us about the storm"),
    *("the old dog sleeps on the stairs", "his answer made everyone laugh", "I miss those long evenings"),
    *("the test failed for no clear reason", "a stranger returned my wallet"),
)
_ENDINGS = (
    *(".", "!", "?", "...", ", and I love it.", ", which scares me.", " :)", ", so we left early.", ", sadly."),
    *(" because somebody had to do it.", " (see the second page).", ", and that is all I know about the matter."),
)


def calibration_texts() -> list[str]:
    """English sentences of many moods and lengths, the same at each call, to judge a model by."""
    sentences = [
        f"{_OPENINGS[i % 12]} {_MIDDLES[i * 5 % 11]}{_ENDINGS[(i * 7 + i // 12) % 12]}" for i in range(_TEXTS + 8)
    ]
    # Every fourth is several sentences long.
    return [" ".join(sentences[i : i + (1 if i % 4 else 2 + i // 4 % 7)]) for i in range(_TEXTS)]


def random_sequences(first: Ids, last: Ids, vocabulary: int, *, count: int = 16) -> list[npt.NDArray[np.int32]]:
    """Sequences of any tokens, common and rare, for languages and domains that the sentences do not speak.

    Args:
        first: Special tokens before each text.
        last: Special tokens behind each text.
        vocabulary: Tokens are drawn below this.
        count: How many.
    """
    generator = np.random.default_rng(0)
    return [
        np.concatenate([first, generator.integers(vocabulary // 50, vocabulary, length, dtype=np.int32), last])
        for length in generator.integers(1, 60, count)
    ]
