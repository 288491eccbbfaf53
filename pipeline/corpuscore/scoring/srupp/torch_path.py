"""SRU++ classifiers scored by their network in torch: on a GPU, or on a CPU without the native kernel.

Shape suffixes: T tokens of all sequences, S sequences, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.scoring import packing
from corpuscore.scoring.accelerator import Passes, Slot, fitting_tokens, free_bytes
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.srupp.attention import Documents
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.srupp.folder import load_network
from corpuscore.scoring.weights.transformers_model import DTYPES, probabilities

#: Above this, larger packs are no faster.
_MOST_TOKENS = 262_144


class TorchClassifier:
    """A network with its passes under way.

    Args:
        folder: Of the classifier.
        device: cuda, or cpu.
        precision: fp32, bf16 or fp16.

    Raises:
        ModelError: A file is missing or broken, or the files don't belong together.
    """

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        self._network = load_network(folder).to(device, DTYPES[precision])
        self._device, self._dtype = device, DTYPES[precision]
        self._passes = Passes(device)

    @property
    def token_budget(self) -> int:
        """From the bytes that a token takes and the memory that is free."""
        one = bytes_a_token(self._network.config, self._dtype.itemsize)
        return fitting_tokens(one, free_bytes(self._device), _MOST_TOKENS)

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pass, and return what waits for its probabilities [S, L]; thread-safe.

        Raises:
            MemoryError: The device's memory does not hold the pack.
        """
        return self._passes.submit(len(tokens.lengths), partial(self._queue, tokens))

    def _queue(self, tokens: Tokens, slot: Slot) -> torch.Tensor:
        """The pass over the sequences, shortest first: sorted here, since the device would have to be waited for."""
        order = np.argsort(tokens.lengths, kind="stable")
        ready = packing.take(tokens, order)
        sizes = [len(ready.ids), len(ready.offsets), len(order)]
        numbers = slot.room(sum(sizes))
        np.concatenate([ready.ids, ready.offsets, np.argsort(order)], out=numbers.numpy(), casting="same_kind")
        moved = numbers.to(self._device, non_blocking=True)
        ids_T, offsets, place_S = torch.split(moved, sizes)
        documents = Documents(torch.from_numpy(ready.offsets), moved.device, offsets.long())
        logits_SL = self._network.shortest_first(ids_T, documents)
        return probabilities(logits_SL, self._network.config.activation)[place_S.long()]


def bytes_a_token(config: SRUppConfig, bytes_a_number: int) -> int:
    """What lives at once for a token at the widest point of the network.

    In a layer these are its input, U (three matrices, a fourth where the widths differ), its output and a temporary;
    and, in the projected space, what attention takes and gives.

    Args:
        config: Sizes of the network.
        bytes_a_number: 4 in fp32, 2 in half precision.
    """
    return (7 * config.channels + 6 * config.proj_size + config.embedding_size) * bytes_a_number
