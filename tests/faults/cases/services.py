"""The service whose model scores a corpus: killed, slow, gone, overloaded, and answers that cannot be right."""

from __future__ import annotations

import math
import struct
import time

import grpc

from corpuscore.inference.open_inference_pb2 import ModelInferResponse
from tests.faults.case import case
from tests.faults.processes import until
from tests.faults.profile import Profile
from tests.faults.scene import Scene
from tests.faults.service import Service, Spoil, Way, late

_LOCAL = Profile(cluster="local")


def _service(scene: Scene, *arguments: str) -> Service:
    """A service that the commands of a scene score with."""
    made = Service(scene.servers.model, scene.folder, *arguments)
    scene.later(made.kill)
    scene.arguments |= {"model": made.start().url, "device": "auto"}
    return made


def _way(scene: Scene, *arguments: str) -> Way:
    """The same with a way to it."""
    made = Way(_service(scene, *arguments))
    scene.later(made.end)
    scene.arguments["model"] = made.url
    return made


@case("services: killed and restarted", short=1)
def restarted(scene: Scene) -> None:
    """The service gets SIGKILL in the middle of a run, and is there again some seconds later."""
    service = _service(scene)
    command = scene.start()
    scene.reached(command, "receipted", scene.some(1, 16))
    service.kill()
    scene.pause(2.0)
    service.start()
    scene.succeeds(command)


@case("services: gone for good", profile=_LOCAL)
def gone(scene: Scene) -> None:
    """The service gets SIGKILL and nobody starts it: said after a stated time; with a new one a rerun goes on."""
    scene.environment["DASK_CORPUSCORE__WAIT_FOR_SERVICE"] = "4s"
    service = _service(scene)
    command = scene.start()
    scene.reached(command, "receipted", scene.some(1, 12))
    service.kill()
    scene.fails(command, "gave no scores for 4 s", "WAIT_FOR_SERVICE")
    service.start()
    scene.succeeds(scene.start())


@case("services: slow", limit=150)
def slow(scene: Scene) -> None:
    """Each answer is half a second late, and two come so late that nobody waits for them."""
    way = _way(scene)
    way.spoil(late(0.5))
    command = scene.start()
    until(lambda: way.answers >= 4 or not command.running, 60, "the fourth answer")
    way.spoil(late(60), times=2)
    until(lambda: way.spoiled or not command.running, 60, "two late answers")
    way.spoil(late(0.5))
    scene.succeeds(command)


@case("services: overloaded", limit=150)
def overloaded(scene: Scene) -> None:
    """The service takes one request at a time, and refuses the others with a hint when to come again."""
    way = _way(scene, "--max-queue", "1", "--max-wait-ms", "100")
    scene.succeeds(scene.start())
    assert way.refused, "the service had room for all"


def _spoiled_for_good(scene: Scene, how: Spoil, *words: str) -> None:
    """From some answer on all are spoiled: the run says so; when they are right again, the same command goes on."""
    way = _way(scene)
    way.spoil(how, after=scene.some(1, 16))
    scene.fails(scene.start(), *words)
    way.heal()
    scene.succeeds(scene.start())


@case("services: NaN", limit=150)
def nan(scene: Scene) -> None:
    """Some answers to several documents have no numbers: each of these documents is asked for again, alone."""
    way = _way(scene)
    way.spoil(_nan, after=scene.some(0, 12), times=scene.some(1, 8))
    scene.succeeds(scene.start())
    assert way.spoiled, "the fault met no answer"


@case("services: too few rows", limit=150)
def few_rows(scene: Scene) -> None:
    """From some answer on there is one row fewer than documents."""
    _spoiled_for_good(scene, _few_rows, "shape")


@case("services: other labels", limit=150)
def other_labels(scene: Scene) -> None:
    """From some answer on there is one label more than the metadata name."""
    _spoiled_for_good(scene, _more_labels, "shape")


@case("services: another version")
def another_version(scene: Scene) -> None:
    """From some answer on another version of the model has scored."""
    _spoiled_for_good(scene, _another_version, "another", "one model")


@case("services: everything a little", limit=150)
def everything(scene: Scene) -> None:
    """One answer of eight is late, lost or refused."""

    def spoil(answer: bytes, context: grpc.ServicerContext) -> bytes:
        chance = scene.random.random()
        if chance < 0.04:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if chance < 0.08:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        if chance < 0.12:
            time.sleep(1.0)
        return answer

    _way(scene).spoil(spoil)
    scene.succeeds(scene.start())


def _nan(answer: bytes, _context: grpc.ServicerContext) -> bytes:
    response = ModelInferResponse.FromString(answer)
    if response.outputs[0].shape[0] == 1:
        return answer
    floats = len(response.raw_output_contents[0]) // 4
    response.raw_output_contents[0] = struct.pack(f"<{floats}f", *[math.nan] * floats)
    return _written(response)


def _few_rows(answer: bytes, _context: grpc.ServicerContext) -> bytes:
    response = ModelInferResponse.FromString(answer)
    for at, tensor in enumerate(response.outputs):
        raw = response.raw_output_contents[at]
        rows = tensor.shape[0]
        response.raw_output_contents[at] = raw[: len(raw) // rows * (rows - 1)]
        tensor.shape[0] = rows - 1
    return _written(response)


def _more_labels(answer: bytes, _context: grpc.ServicerContext) -> bytes:
    response = ModelInferResponse.FromString(answer)
    rows, labels = response.outputs[0].shape
    response.outputs[0].shape[1] = labels + 1
    response.raw_output_contents[0] = struct.pack(f"<{rows * (labels + 1)}f", *[0.25] * (rows * (labels + 1)))
    return _written(response)


def _another_version(answer: bytes, _context: grpc.ServicerContext) -> bytes:
    response = ModelInferResponse.FromString(answer)
    response.model_version = "another"
    return _written(response)


def _written(response: ModelInferResponse) -> bytes:
    written: bytes = response.SerializeToString()
    return written
