"""Requests and responses of the Open Inference Protocol over HTTP: JSON, with or without tensors in binary behind it.

A body is a JSON object; where the header Inference-Header-Content-Length is given, the object has so many bytes, and
the data of tensors with the parameter binary_data_size follow it, in the order of the tensors.

Numbers: a float32 is written as the float64 of the same value, whose shortest digits any JSON reader turns back into
the same bits. A row that could not be scored is null in JSON, which has no NaN, and NaN in binary; the response's
parameter `failed` says why.

Source: https://github.com/kserve/open-inference-protocol; Triton's binary tensor data and schedule policy extensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson

from corpuscore.errors import MessageError, MessageTooLarge
from corpuscore.inference.tensors import (
    FAILED,
    INPUT,
    PROBABILITIES,
    TOKENS,
    TRUNCATED,
    check_count,
    check_outputs,
    failed_text,
    texts_of_raw,
)
from corpuscore.scoring.scorer import Scores

T = TypeVar("T")

#: What a header says of where the JSON object ends.
HEADER_LENGTH = "inference-header-content-length"
#: Outputs and their datatypes, in the order in which they are given where a request names none.
_DATATYPES = {PROBABILITIES: "FP32", TOKENS: "INT32", TRUNCATED: "BOOL"}
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
#: Letters of a value that an error message repeats.
_LETTERS = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        texts: Documents.
        id: The request's own name for itself, which the response repeats; None where it has none.
        outputs: Names of the wanted outputs in order, and whether each is wanted in binary.
        timeout_seconds: How long the client waits; None: as long as it takes.
    """

    texts: list[str]
    id: str | None
    outputs: dict[str, bool]
    timeout_seconds: float | None


def read_request(body: bytes | bytearray, header_length: int | None, most_documents: int) -> Asked:
    """What a body asks for.

    Args:
        body: All of it.
        header_length: Bytes of the JSON object; None: the whole body.
        most_documents: That a request may have.

    Raises:
        MessageError: The body is not a request that can be answered; the message says where.
        MessageTooLarge: It has more texts.
    """
    view = memoryview(body)
    end = len(view) if header_length is None else header_length
    if end > len(view):
        raise _wrong(
            f"Inference-Header-Content-Length is {end} and the body has {len(view)} bytes", "it is a part of it"
        )
    try:
        request = orjson.loads(view[:end])
    except orjson.JSONDecodeError as error:
        raise _wrong(f"The body is not JSON ({str(error)[:200]})", "a request is one JSON object in UTF-8") from None
    request = _typed(request, dict, "The request")
    parameters = _parameters(request, "The request")
    texts = _texts(_typed(request.get("inputs"), list, "inputs"), view[end:], most_documents)
    name = request.get("id")
    return Asked(
        texts=texts,
        id=None if name is None else _typed(name, str, "id"),
        outputs=_wanted(request.get("outputs"), parameters),
        timeout_seconds=_timeout(parameters),
    )


def write_response(
    head: dict[str, Any], asked: Asked, labels: Sequence[str], scores: Scores
) -> tuple[bytes, int | None]:
    """The body of a response, and the bytes of its JSON object where tensors in binary follow it.

    Args:
        head: What stands before the outputs: names of the model and its version.
        asked: What is answered.
        labels: Of the columns of the probabilities; the parameter `labels` of that output has them as a JSON list.
        scores: Of asked.texts.
    """
    found = {PROBABILITIES: scores.probabilities_DL, TOKENS: scores.tokens_D, TRUNCATED: scores.truncated_D}
    outputs, binary = [], []
    for name, in_binary in asked.outputs.items():
        values = found[name]
        parameters: dict[str, Any] = {"labels": orjson.dumps(labels).decode()} if name == PROBABILITIES else {}
        output: dict[str, Any] = {"name": name, "datatype": _DATATYPES[name], "shape": values.shape}
        if in_binary:
            binary.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            parameters["binary_data_size"] = len(binary[-1])
        else:
            output["data"] = values.ravel().astype(np.float64) if name == PROBABILITIES else values
        outputs.append({**output, "parameters": parameters} if parameters else output)
    named = {"id": asked.id} if asked.id is not None else {}
    failed = {"parameters": {FAILED: failed_text(scores.failed)}} if scores.failed else {}
    written = orjson.dumps({**head, **named, **failed, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([written, *binary]), len(written) if binary else None


def _texts(inputs: list[Any], binary: memoryview, most: int) -> list[str]:
    if len(inputs) != 1:
        raise _wrong(f"inputs has {len(inputs)} tensors", f"the model has one input, {INPUT!r}")
    tensor = _typed(inputs[0], dict, "inputs[0]")
    if tensor.get("name") != INPUT:
        raise _wrong(f"inputs[0].name is {_shown(tensor.get('name'))}", f"the model has one input, {INPUT!r}")
    if tensor.get("datatype") != "BYTES":
        raise _wrong(f"inputs[0].datatype is {_shown(tensor.get('datatype'))}", "texts are BYTES")
    shape = _typed(tensor.get("shape"), list, "inputs[0].shape")
    documents = _documents(shape)
    if documents > most:
        raise MessageTooLarge(
            f"{documents} texts in one request",
            rule=f"This service takes at most {most}",
            next_step="send them in several requests",
        )
    size = _parameters(tensor, "inputs[0]").get("binary_data_size")
    if size is None:
        if len(binary):
            raise _wrong(f"{len(binary)} bytes follow the JSON object", "no tensor has a binary_data_size")
        return _listed(tensor.get("data"), documents, len(shape) == 2)
    if "data" in tensor:
        raise _wrong("inputs[0] has data and a binary_data_size", "a tensor's data are in one place")
    if type(size) is not int or size != len(binary):
        raise _wrong(f"binary_data_size is {_shown(size)} and {len(binary)} bytes follow", "they are as many")
    return texts_of_raw(bytes(binary), documents)


def _documents(shape: list[Any]) -> int:
    """Documents of a tensor of shape [documents] or [documents, 1]."""
    sizes = all(type(size) is int and 0 <= size < 2**31 for size in shape)
    if not sizes or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise _wrong(f"inputs[0].shape is {_shown(shape)}", "texts have the shape [documents] or [documents, 1]")
    return int(shape[0])


def _listed(data: Any, documents: int, may_nest: bool) -> list[str]:
    """Texts of a JSON list: flat, or as nested as the shape says."""
    texts = check_count(_typed(data, list, "inputs[0].data"), documents)
    if may_nest and texts and all(type(row) is list and len(row) == 1 for row in texts):
        texts = [row[0] for row in texts]
    for index, text in enumerate(texts):
        if type(text) is not str:
            raise _wrong(f"inputs[0].data[{index}] is {_shown(text)}", "a text is a string")
    return texts


def _wanted(outputs: Any, parameters: dict[str, Any]) -> dict[str, bool]:
    everything = parameters.get("binary_data_output", False)
    if type(everything) is not bool:
        raise _wrong(f"binary_data_output is {_shown(everything)}", "it is true or false")
    if outputs is None or outputs == []:
        return dict.fromkeys(_DATATYPES, everything)
    wanted: dict[str, bool] = {}
    for index, output in enumerate(_typed(outputs, list, "outputs")):
        name = _typed(_typed(output, dict, f"outputs[{index}]").get("name"), str, f"outputs[{index}].name")
        check_outputs([name])
        if name in wanted:
            raise _wrong(f"outputs[{index}].name is {name!r} again", "each is asked for once")
        asked = _parameters(output, f"outputs[{index}]")
        if asked.get("classification"):
            raise _wrong(f"outputs[{index}] asks for a classification", "the probabilities of all labels are given")
        binary = asked.get("binary_data", everything)
        if type(binary) is not bool:
            raise _wrong(f"outputs[{index}] has binary_data {_shown(binary)}", "it is true or false")
        wanted[name] = binary
    return wanted


def _timeout(parameters: dict[str, Any]) -> float | None:
    """Seconds of the parameter `timeout`, which has microseconds; 0 is none."""
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise _wrong(f"The parameter timeout is {_shown(value)}", "it is a number of microseconds")
    return value / 1e6 if value else None


def read_timeout(header: str | None) -> float | None:
    """Seconds of the header Request-Timeout.

    Raises:
        MessageError: It is no positive number.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _wrong(f"The header Request-Timeout is {_shown(header)}", "it is a positive number of seconds")
    return seconds


def read_header_length(header: str | None) -> int | None:
    """Bytes of the JSON object as the header Inference-Header-Content-Length says.

    Raises:
        MessageError: It is no number.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 16):
        raise _wrong(f"Inference-Header-Content-Length is {_shown(header)}", "it is a number of bytes")
    return int(header)


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    return _typed(holder.get("parameters", {}), dict, f"parameters of {where}")


def _typed(value: Any, kind: type[T], where: str) -> T:
    if type(value) is not kind:
        raise _wrong(f"{where} is {_shown(value)}", f"it is {_KINDS[kind]}")
    return value


def _shown(value: Any) -> str:
    """A value of JSON in a few letters; long ones are never written out whole."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LETTERS else f"{value[:_LETTERS]}...")
    if isinstance(value, list | dict):
        few = len(value) <= 4 and not any(isinstance(part, list | dict | str) for part in value)
        if isinstance(value, list) and few:
            return str(value)
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return "missing" if value is None else str(value)[:_LETTERS]


def _wrong(value: str, rule: str) -> MessageError:
    return MessageError(value, rule=rule[0].upper() + rule[1:], next_step="correct the request")
