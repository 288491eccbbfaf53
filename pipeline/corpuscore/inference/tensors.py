"""Texts and scores as messages of the protocol, and back; both ways that a tensor may lie in a message are read.

A request has one input, BYTES [D]: a text in UTF-8 each. A response has `probabilities` FP32 [D, L], `tokens` INT32 [D]
and `truncated` BOOL [D]; a document that cannot be scored even alone has a row of NaN, and why in the parameter
`failed`: a JSON object of [reason, detail] by index. Servers of other makers have the probabilities alone.

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from corpuscore.errors import MessageError, MessageTooLarge
from corpuscore.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from corpuscore.records import Skipped

T = TypeVar("T")

INPUT = "text"
PROBABILITIES, TOKENS, TRUNCATED = "probabilities", "tokens", "truncated"
#: The parameter of a response that says why rows are NaN.
FAILED = "failed"

#: Texts of one request, where nothing else is said.
MOST_TEXTS = 10_000

_LENGTH = struct.Struct("<I")
#: How elements lie in raw contents, and the field of typed contents that holds them.
_KINDS: dict[str, tuple[str, str]] = {
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
    "FP16": ("<f2", ""),  # the protocol has no typed contents for it
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "BOOL": ("|b1", "bool_contents"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response says.

    Attributes:
        probabilities_DL: float32, NaN where the server had no number.
        tokens_D: int32, tokens used; None where the server does not tell.
        truncated_D: bool, whether more were there; None where the server does not tell.
        failed: Why, by index, for documents that could not be scored.
        model_version: Of the model that scored them; empty where the server has none.
    """

    probabilities_DL: npt.NDArray[np.float32]
    tokens_D: npt.NDArray[np.int32] | None = None
    truncated_D: npt.NDArray[np.bool_] | None = None
    failed: dict[int, Skipped] = field(default_factory=dict)
    model_version: str = ""


def request_of(
    model: str, texts: Sequence[str], *, version: str = "", id: str = "", input_name: str = INPUT
) -> ModelInferRequest:
    """A request to score texts.

    Args:
        model: Name of the model at the service.
        texts: At least one.
        version: Of the model; empty: whichever the service has.
        id: Comes back in the response.
        input_name: What the model calls its texts.

    Raises:
        UnicodeEncodeError: A text has half a surrogate pair, which UTF-8 cannot say.
    """
    request = ModelInferRequest(model_name=model, model_version=version, id=id)
    request.inputs.add(name=input_name, datatype="BYTES", shape=[len(texts)])
    parts: list[bytes] = []
    for text in texts:
        encoded = text.encode()
        parts += (_LENGTH.pack(len(encoded)), encoded)
    request.raw_input_contents.append(b"".join(parts))
    return request


def texts_of(request: ModelInferRequest, most_texts: int = MOST_TEXTS) -> list[str]:
    """The texts of a request.

    Raises:
        MessageTooLarge: There are more than so many.
        MessageError: Not one input of BYTES in one dimension, contents that do not fit the shape, or not UTF-8.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        names = ", ".join(repr(tensor.name[:40]) for tensor in request.inputs[:8]) or "none"
        raise MessageError(
            f"Inputs: {names}", rule=f"There is one, {INPUT!r}", next_step="ask for the model's metadata"
        )
    tensor = request.inputs[0]
    shape = list(tensor.shape)
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or shape[0] < 0:
        raise MessageError(
            f"Input {INPUT!r} is {tensor.datatype[:20]!r} of shape {shape[:8]}",
            rule="It is BYTES of shape [documents] or [documents, 1]",
            next_step="send each text as one element, in UTF-8",
        )
    if shape[0] > most_texts:
        raise MessageTooLarge(
            f"{shape[0]} texts in one request",
            rule=f"This service takes at most {most_texts}",
            next_step="send them in several requests",
        )
    return _decoded(_elements(request, shape[0]))


def _elements(request: ModelInferRequest, count: int) -> list[bytes]:
    """The elements of the only input, however they are given."""
    typed, raw = request.inputs[0].contents.bytes_contents, request.raw_input_contents
    if raw and (len(raw) != 1 or typed):
        raise MessageError(
            f"{len(raw)} raw contents and {len(typed)} typed elements for one input",
            rule="An input has raw contents, or typed ones",
            next_step="leave one of them out",
        )
    return check_count(_split(raw[0], count) if raw else list(typed), count)


def check_count(elements: list[T], count: int) -> list[T]:
    """The elements of a tensor, where they are as many as its shape says.

    Raises:
        MessageError: They are not.
    """
    if len(elements) != count:
        raise MessageError(
            f"{len(elements)} elements in a tensor of shape [{count}]",
            rule="A tensor has as many elements as its shape says",
            next_step="give the shape as [number of texts]",
        )
    return elements


def texts_of_raw(raw: bytes, count: int) -> list[str]:
    """So many texts that lie end to end, each in UTF-8 after its length in 4 bytes, little-endian.

    Raises:
        MessageError: There are more or fewer, or one is not UTF-8.
    """
    return _decoded(check_count(_split(raw, count), count))


def _split(raw: bytes, count: int) -> list[bytes]:
    """Elements that lie end to end, each after its length; one more than count where there are more."""
    found: list[bytes] = []
    at, end, unpack = 0, len(raw), _LENGTH.unpack_from
    while at + 4 <= end and len(found) <= count:
        start = at + 4
        at = start + unpack(raw, at)[0]
        found.append(raw[start:at])
    if at > end or (at < end and len(found) <= count):
        raise MessageError(
            f"Raw contents of {end} bytes end within element {len(found) - (at > end)}",
            rule="Each element of a BYTES tensor follows its length in 4 bytes, little-endian",
            next_step="write them so, or send typed contents",
        )
    return found


def _decoded(elements: list[bytes]) -> list[str]:
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        index = elements.index(error.object)
        raise MessageError(
            f"Text {index} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}",
            rule="Texts are UTF-8",
            next_step="decode it as what it is, and encode it again; the other texts are not judged",
        ) from None


def response_of(
    probabilities_DL: npt.NDArray[np.float32],
    tokens_D: npt.NDArray[np.int32],
    truncated_D: npt.NDArray[np.bool_],
    failed: dict[int, Skipped],
    *,
    model: str,
    version: str,
    id: str = "",
    outputs: Sequence[str] = (),
) -> ModelInferResponse:
    """Scores as a response.

    Args:
        probabilities_DL, tokens_D, truncated_D, failed: As in Answer.
        model, version, id: Of the request.
        outputs: Names of those that are wanted; none: all.

    Raises:
        MessageError: An output is wanted that there is not.
    """
    response = ModelInferResponse(model_name=model, model_version=version, id=id)
    tensors: dict[str, tuple[str, npt.NDArray[Any]]] = {
        PROBABILITIES: ("FP32", probabilities_DL),
        TOKENS: ("INT32", tokens_D),
        TRUNCATED: ("BOOL", truncated_D),
    }
    check_outputs(outputs)
    for name in outputs or tensors:
        datatype, values = tensors[name]
        response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        response.raw_output_contents.append(values.astype(_KINDS[datatype][0], copy=False).tobytes())
    if failed:
        response.parameters[FAILED].string_param = failed_text(failed)
    return response


def failed_text(failed: dict[int, Skipped]) -> str:
    """The parameter of a response that says why documents have no scores, by index."""
    return orjson.dumps({str(index): [why.reason, why.detail] for index, why in failed.items()}).decode()


def check_outputs(names: Sequence[str]) -> None:
    """See that there are outputs of these names, before anything is scored for them.

    Raises:
        MessageError: There is none of that name.
    """
    for name in names:
        if name not in (PROBABILITIES, TOKENS, TRUNCATED):
            raise MessageError(
                f"No output {name[:40]!r}",
                rule=f"There are {PROBABILITIES}, {TOKENS} and {TRUNCATED}",
                next_step="ask for these, or for none to get all",
            )


def scores_of(response: ModelInferResponse, documents: int, labels: int, output_name: str = PROBABILITIES) -> Answer:
    """The scores of a response. Whether they are numbers at all is for the caller to judge.

    Args:
        response: From whatever server.
        documents: That were sent.
        labels: That the model has.
        output_name: What the model calls its probabilities.

    Raises:
        MessageError: No such output, another shape, another datatype, or contents that do not fit.
    """
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise MessageError(
            f"{len(response.outputs)} outputs with {len(raw)} raw contents",
            rule="Each output of a response has one",
            next_step="mend the service",
        )
    found = {tensor.name: (tensor, raw[at] if raw else None) for at, tensor in enumerate(response.outputs)}
    if output_name not in found:
        names = ", ".join(repr(name[:40]) for name in list(found)[:8]) or "none"
        raise MessageError(
            f"Outputs {names} in a response of {response.model_name[:80]!r}",
            rule=f"Its probabilities are called {output_name!r}",
            next_step="correct the name, or mend the service",
        )
    probabilities = _array(*found[output_name], (documents, labels), ("FP32", "FP64", "FP16"))
    own = {name: found.get(name) for name in (TOKENS, TRUNCATED)}
    tokens, truncated = own[TOKENS], own[TRUNCATED]
    return Answer(
        probabilities.astype(np.float32, copy=False),
        None if tokens is None else _array(*tokens, (documents,), ("INT32", "INT64")).astype(np.int32, copy=False),
        None if truncated is None else _array(*truncated, (documents,), ("BOOL",)),
        _reasons(response.parameters[FAILED].string_param if FAILED in response.parameters else "{}", documents),
        response.model_version,
    )


def _array(
    tensor: ModelInferResponse.InferOutputTensor, raw: bytes | None, shape: tuple[int, ...], kinds: tuple[str, ...]
) -> npt.NDArray[Any]:
    if tensor.datatype not in kinds or tuple(tensor.shape) != shape:
        raise MessageError(
            f"Output {tensor.name[:40]!r} is {tensor.datatype[:20]!r} of shape {list(tensor.shape)[:8]}",
            rule=f"It is {' or '.join(kinds)} of shape {list(shape)} for what was sent",
            next_step="mend the service, or name the model that has these labels",
        )
    layout, field_name = _KINDS[tensor.datatype]
    typed = getattr(tensor.contents, field_name) if field_name else ()
    size = len(raw) / np.dtype(layout).itemsize if raw is not None else len(typed)
    if size != math.prod(shape):
        raise MessageError(
            f"Output {tensor.name[:40]!r} of shape {list(shape)} holds {size:g} elements",
            rule="A tensor has as many elements as its shape says",
            next_step="mend the service",
        )
    values = np.frombuffer(raw, layout) if raw is not None else np.array(typed, layout)
    return values.reshape(shape)


def _reasons(said: str, documents: int) -> dict[int, Skipped]:
    try:
        why = {int(index): Skipped(str(reason), str(detail)) for index, (reason, detail) in orjson.loads(said).items()}
    except (ValueError, TypeError, AttributeError):
        why = {-1: Skipped("", "")}
    if not all(0 <= index < documents for index in why):
        raise MessageError(
            f"Parameter {FAILED!r} of a response is {said[:200]!r}",
            rule="It is a JSON object of [reason, detail] by the documents' indices",
            next_step="mend the service",
        )
    return why
