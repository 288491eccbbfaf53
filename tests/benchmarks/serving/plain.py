"""A service as one would write it in an afternoon: transformers' pipeline behind the protocol's gRPC.

python -m tests.benchmarks.serving.plain --model M --batching none|arrival|length

`none` scores request by request. The others gather the requests that wait into padded batches: in the order of their
arrival, or, of all that wait, those of like length together.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import click
import grpc
import numpy as np
import torch
import transformers

from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from corpuscore.inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from corpuscore.inference.tensors import response_of, texts_of
from corpuscore.scoring import describe_scorer

#: Padded texts of one pass, which was the best of 8, 16, 32 and 64 for the MiniLM model on two cores.
BATCH = 16
#: As many clients wait at once.
THREADS = 512

_Waiting = tuple[str, "Future[dict[str, float]]"]


class Plain(GRPCInferenceServiceServicer):
    """Answers requests of one text each.

    Args:
        model: A checkpoint.
        batching: none, arrival or length.
    """

    def __init__(self, model: str, batching: str) -> None:
        info = describe_scorer(model, device="cpu", precision="fp32")
        self._labels = info.labels
        self._card = ModelCard(name="plain", labels=info.labels, fingerprint=info.fingerprint)
        self._pipeline: Any = transformers.pipeline(
            "text-classification", model=model, device="cpu", top_k=None, truncation=True, max_length=512
        )
        self._batching = batching
        self._waiting: SimpleQueue[_Waiting] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def ModelMetadata(self, request: Any, context: Any) -> ModelMetadataResponse:  # noqa: N802  # the protocol's
        """Labels and a version."""
        return self._card.to_response()

    def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: N802
        """Scores of the request's only text."""
        (text,) = texts_of(request)
        future: Future[dict[str, float]] = Future()
        self._waiting.put((text, future))
        found = future.result()
        row = np.array([[found[label] for label in self._labels]], np.float32)
        return response_of(
            row, np.zeros(1, np.int32), np.zeros(1, np.bool_), {}, model="plain", version=self._card.fingerprint,
            id=request.id, outputs=["probabilities"],
        )  # fmt: skip

    def _run(self) -> None:
        while True:
            waiting = [self._waiting.get()]
            while self._batching != "none" and not self._waiting.empty() and self._room(len(waiting)):
                waiting.append(self._waiting.get())
            if self._batching == "length":
                waiting.sort(key=lambda item: len(item[0]))
            for start in range(0, len(waiting), BATCH):
                some = waiting[start : start + BATCH]
                rows = self._pipeline([text for text, _ in some], batch_size=len(some))
                for (_, future), row in zip(some, rows, strict=True):
                    future.set_result({item["label"]: item["score"] for item in row})

    def _room(self, waiting: int) -> bool:
        return self._batching == "length" or waiting < BATCH


@click.command()
@click.option("--model", required=True)
@click.option("--batching", type=click.Choice(["none", "arrival", "length"]), required=True)
def main(model: str, batching: str) -> None:
    """Serve until killed; the port is the first line of output."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    server = grpc.server(ThreadPoolExecutor(THREADS))
    add_GRPCInferenceServiceServicer_to_server(Plain(model, batching), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
