"""A runtime of MLServer around transformers' text-classification pipeline; runs in MLServer's own environment.

It is what a user of MLServer would write: the texts come as an input, the probabilities go out as FP32 [texts, labels].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataTensor, Parameters


class Pipeline(MLModel):  # type: ignore[misc]  # MLServer is not in the environment that is checked
    """Probabilities of all labels, a text at a time, as the pipeline gives them."""

    async def load(self) -> bool:
        """Load the checkpoint that the settings name."""
        self._pipeline: Any = transformers.pipeline(
            "text-classification", model=self.settings.parameters.uri, device="cpu", top_k=None
        )
        names: Any = self._pipeline.model.config.id2label
        self._labels = [names[index] for index in range(len(names))]
        return True

    async def metadata(self) -> MetadataModelResponse:
        """Inputs, outputs and, where the settings say so, the labels as a parameter."""
        said = MetadataModelResponse(
            name=self.name,
            platform="transformers",
            versions=[self.version],
            inputs=[MetadataTensor(name="texts", datatype="BYTES", shape=[-1])],
            outputs=[MetadataTensor(name="scores", datatype="FP32", shape=[-1, len(self._labels)])],
        )
        if self.settings.parameters.extra["tells"]:
            said.parameters = Parameters(labels=str(self._labels).replace("'", '"'), activation="sigmoid")
        return said

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score the texts of a request."""
        texts = StringCodec.decode_input(payload.inputs[0])
        rows = []
        for found in self._pipeline(texts, truncation=True, batch_size=1):
            by_label = {item["label"]: item["score"] for item in found}
            rows.append([by_label[label] for label in self._labels])
        scores = NumpyCodec.encode_output("scores", np.array(rows, np.float32))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[scores])
