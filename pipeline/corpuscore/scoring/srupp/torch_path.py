"""SRU++ classifiers scored by their network in torch: on a GPU, or on a CPU without the native kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.srupp.folder import load_network
from corpuscore.scoring.weights.transformers_model import DTYPES, probabilities


def in_torch(folder: Path, device: str, precision: str) -> Callable[[Tokens], Callable[[], npt.NDArray[np.float32]]]:
    """Load a network; what comes back queues a forward pass, and gives what waits for its probabilities [S, L].

    Args:
        folder: Of the classifier.
        device: cpu or cuda.
        precision: fp32, bf16 or fp16.

    Raises:
        ModelError: A file is missing or broken, or the files don't belong together.
    """
    network = load_network(folder).to(device, DTYPES[precision])

    @torch.inference_mode()
    def queue(tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        ids_T = torch.from_numpy(tokens.ids).to(device, non_blocking=True)
        queued_SL = probabilities(network(ids_T, torch.from_numpy(tokens.offsets)), network.config.activation)
        return lambda: queued_SL.cpu().numpy()

    return queue
