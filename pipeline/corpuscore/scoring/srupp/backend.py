"""SRU++ classifiers as scoring backends. torch is imported only on a GPU, or where the native kernel is missing.

Shape suffixes: T tokens of all sequences, S sequences, L labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from corpuscore.records import ScorerInfo
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.devices import cpu_threads
from corpuscore.scoring.kernels import build
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.srupp import folder, native
from corpuscore.scoring.tokenized import QueuedBackend, TokenizedBackend


class CpuSruppBackend(TokenizedBackend):
    """On the CPU, in fp32: the native classifier, or torch where it could not be built (that was announced)."""

    token_budget = 16_384

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, threads: int | None) -> None:
        super().__init__(checkpoint, info, threads)
        self._classify = _on_cpu(checkpoint, cpu_threads(threads))

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L]."""
        return self._classify(tokens)


class CudaSruppBackend(QueuedBackend):
    """On a GPU; the next pack is prepared while the last one runs.

    Args:
        checkpoint: Already checked.
        info: What this backend is.
        device: cuda; cpu runs the same logic, for tests.
    """

    def __init__(self, checkpoint: Checkpoint, info: ScorerInfo, *, device: str = "cuda") -> None:
        from corpuscore.scoring.srupp.torch_path import TorchClassifier

        super().__init__(checkpoint, info, None)
        self._classifier = TorchClassifier(checkpoint.folder, device, info.precision)

    @property
    def token_budget(self) -> int:
        """From the bytes that a token takes and the memory that is free."""
        return self._classifier.token_budget

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack; see QueuedBackend."""
        return self._classifier.submit(tokens)


def _on_cpu(checkpoint: Checkpoint, threads: int) -> Callable[[Tokens], npt.NDArray[np.float32]]:
    if build.why_missing(native.SOURCE):
        from corpuscore.scoring.srupp.torch_path import TorchClassifier
        from corpuscore.scoring.weights.transformers_model import use_threads

        use_threads(threads)
        classifier = TorchClassifier(checkpoint.folder, "cpu", "fp32")
        return lambda tokens: classifier.submit(tokens)()
    config, state = folder.read_config(checkpoint.folder), folder.read_state(checkpoint.folder)
    try:
        return native.NativeClassifier(config, state, threads)
    except ValueError as error:
        raise folder.broken(checkpoint.folder, str(error)) from error
