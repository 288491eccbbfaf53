"""What a model says of itself: a ModelCard, as the protocol's metadata in protobuf and in JSON.

Servers of other makers say less: no labels, no fingerprint. What they do not say is empty here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from corpuscore.errors import MessageError
from corpuscore.inference.open_inference_pb2 import InferParameter, ModelMetadataResponse
from corpuscore.inference.tensors import INPUT, MOST_TEXTS, PROBABILITIES, TOKENS, TRUNCATED
from corpuscore.records import ScorerInfo


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as a service offers it.

    Attributes:
        name: At the service.
        labels: In the order of the columns.
        fingerprint: See ScorerInfo; the model's version at the service.
        activation, backend, precision, model, parameters: See ScorerInfo; `model` without the folders above it.
        max_tokens: Of a window.
        long_documents: What becomes of longer ones.
        max_texts: That one request may have; 0 where nothing is said.
        max_bytes: That one request may have; 0 where nothing is said.
        platform: What runs it, in the protocol's words.
        versions: All that the service has; the fingerprint alone at ours.
        input_name, output_name: What the model calls its texts and its probabilities.
    """

    name: str
    labels: tuple[str, ...] = ()
    fingerprint: str = ""
    activation: str = ""
    backend: str = ""
    precision: str = ""
    model: str = ""
    parameters: int = 0
    max_tokens: int = 0
    long_documents: str = ""
    max_texts: int = 0
    max_bytes: int = 0
    platform: str = ""
    versions: tuple[str, ...] = ()
    input_name: str = INPUT
    output_name: str = PROBABILITIES

    @classmethod
    def of(
        cls,
        name: str,
        info: ScorerInfo,
        *,
        max_tokens: int,
        long_documents: str,
        max_texts: int = MOST_TEXTS,
        max_bytes: int = 0,
    ) -> ModelCard:
        """The card of a scorer."""
        return cls(
            name=name,
            labels=info.labels,
            fingerprint=info.fingerprint,
            activation=info.activation,
            backend=info.backend,
            precision=info.precision,
            model=info.model.rstrip("/").rpartition("/")[2] if info.model.startswith(("/", ".", "~")) else info.model,
            parameters=info.parameters,
            max_tokens=max_tokens,
            long_documents=long_documents,
            max_texts=max_texts,
            max_bytes=max_bytes,
            platform=f"corpuscore_{info.backend}",
            versions=(info.fingerprint,),
        )

    @property
    def properties(self) -> dict[str, str]:
        """What the protocol has no field of its own for, as text; empty ones are left out."""
        said = {
            "labels": orjson.dumps(self.labels).decode() if self.labels else "",
            "activation": self.activation,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "backend": self.backend,
            "parameters": self.parameters,
            "max_tokens": self.max_tokens,
            "long_documents": self.long_documents,
            "max_texts": self.max_texts,
            "max_bytes": self.max_bytes,
            "model": self.model,
        }
        return {key: str(value) for key, value in said.items() if value}

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The tensors of a request, as the protocol's JSON has them."""
        return [{"name": self.input_name, "datatype": "BYTES", "shape": [-1]}]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The tensors of a response, as the protocol's JSON has them."""
        return [
            {"name": self.output_name, "datatype": "FP32", "shape": [-1, len(self.labels)]},
            {"name": TOKENS, "datatype": "INT32", "shape": [-1]},
            {"name": TRUNCATED, "datatype": "BOOL", "shape": [-1]},
        ]

    def to_json(self) -> dict[str, Any]:
        """The metadata in the protocol's JSON form."""
        return {
            "name": self.name,
            "versions": list(self.versions),
            "platform": self.platform,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "properties": self.properties,
        }

    def to_response(self) -> ModelMetadataResponse:
        """The metadata in protobuf."""
        said = self.to_json()
        return ModelMetadataResponse(**{**said, "properties": {k: v.encode() for k, v in self.properties.items()}})

    @classmethod
    def of_response(cls, response: ModelMetadataResponse) -> ModelCard:
        """The card that some server shows.

        The texts are the only input of BYTES, the probabilities the output of that name or the first of floats.

        Raises:
            MessageError: No input takes texts, no output has probabilities, or a property is not what it must be.
        """
        said = {key: property_text(value) for key, value in response.properties.items()}
        inputs = _named(response.inputs, ("BYTES",), INPUT)
        outputs = _named(response.outputs, ("FP32", "FP64", "FP16"), PROBABILITIES)
        versions = tuple(response.versions)
        return cls(
            name=response.name,
            labels=_labels(said, response.name),
            fingerprint=said.get("fingerprint", versions[0] if len(versions) == 1 else ""),
            activation=said.get("activation", ""),
            backend=said.get("backend", ""),
            precision=said.get("precision", ""),
            model=said.get("model", ""),
            parameters=_number(said, "parameters"),
            max_tokens=_number(said, "max_tokens"),
            long_documents=said.get("long_documents", ""),
            max_texts=_number(said, "max_texts"),
            max_bytes=_number(said, "max_bytes"),
            platform=response.platform,
            versions=versions,
            input_name=inputs,
            output_name=outputs,
        )


def property_text(value: bytes) -> str:
    """A property as text, whether the server sent a string or an InferParameter.

    An InferParameter begins with a control character, but for numbers that are no properties; a string does not.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if all(letter.isprintable() or letter in "\t\r\n" for letter in text[:1]):
        return text
    try:
        parameter = InferParameter.FromString(value)
    except DecodeError:
        return text
    chosen = parameter.WhichOneof("parameter_choice")
    return text if chosen is None else str(getattr(parameter, chosen))


def _named(tensors: Sequence[ModelMetadataResponse.TensorMetadata], kinds: tuple[str, ...], wanted: str) -> str:
    """The name of the tensor that is meant: `wanted` where there is one, or where nothing is said at all."""
    names = [tensor.name for tensor in tensors if tensor.datatype in kinds]
    if wanted in names or not tensors:
        return wanted
    if not names:
        kind = ", ".join(f"{tensor.name[:40]!r} {tensor.datatype[:20]}" for tensor in tensors[:8])
        raise MessageError(
            f"The model has {kind}",
            rule=f"A classifier of texts has a tensor {wanted!r} of {' or '.join(kinds)}",
            next_step="name another model of the service",
        )
    return names[0]


def _labels(said: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        labels = orjson.loads(said.get("labels", "[]"))
    except ValueError:
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise MessageError(
            f"Property labels of {name[:80]!r} is {said['labels'][:200]!r}",
            rule="It is a JSON list of strings, in the order of the columns",
            next_step="mend the service's metadata",
        )
    return tuple(labels)


def _number(said: Mapping[str, str], key: str) -> int:
    value = said.get(key, "0")
    return int(value) if value.isdecimal() and len(value) < 20 else 0  # longer ones are no numbers to Python
