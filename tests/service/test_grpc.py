"""The gRPC door: the protocol's methods, statuses with hints, deadlines, tokens and bounds, over real connections."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from corpuscore.inference import open_inference_pb2 as messages
from corpuscore.inference.metadata import ModelCard
from corpuscore.inference.tensors import request_of, scores_of
from corpuscore.service.admission import Admission
from tests.scoring.letters import Letters, letter_scores
from tests.service.doors import CARD, door
from tests.service.held import Held, run, until

#: Sends as many bytes as a test wants to.
UNBOUND = [("grpc.max_send_message_length", -1)]


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def hint(error: grpc.aio.AioRpcError) -> float:
    """Seconds after which the server wants to be asked again, said in two ways that agree."""
    said = dict(error.trailing_metadata())
    status = Status.FromString(said["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert int(said["grpc-retry-pushback-ms"]) == info.retry_delay.ToMilliseconds()
    return float(info.retry_delay.ToMilliseconds() / 1000)


def test_what_the_server_says_of_itself_and_of_its_model() -> None:
    """Live, ready and the metadata of both; the card that a client reads is the one that is served."""

    async def go() -> None:
        async with door(Letters()) as one:
            assert (await one.stub.ServerLive(messages.ServerLiveRequest())).live
            assert (await one.stub.ServerReady(messages.ServerReadyRequest())).ready
            assert (await one.stub.ModelReady(messages.ModelReadyRequest(name="letters"))).ready
            assert (await one.stub.ServerMetadata(messages.ServerMetadataRequest())).name == "corpuscore"
            said = await one.stub.ModelMetadata(messages.ModelMetadataRequest(name="letters", version="0" * 16))
            assert ModelCard.of_response(said) == CARD

    run(go())


def test_texts_are_scored() -> None:
    """Rows, counts and flags in order, with the id and the version; only the outputs that are asked for."""

    async def go() -> None:
        texts = ["good morning", "", "größe", "a" * 40]
        async with door(Letters()) as one:
            response = await one.stub.ModelInfer(request_of("letters", texts, id="7"))
            answer = scores_of(response, 4, 2)
            assert (response.id, answer.model_version) == ("7", "0" * 16)
            want = np.array([letter_scores(text[:30]) for text in texts], np.float32)
            np.testing.assert_array_equal(answer.probabilities_DL, want)
            assert answer.truncated_D is not None
            assert answer.truncated_D.tolist() == [False, False, False, True]
            few = request_of("letters", texts)
            few.outputs.add(name="tokens")
            assert [tensor.name for tensor in (await one.stub.ModelInfer(few)).outputs] == ["tokens"]
            nothing = scores_of(await one.stub.ModelInfer(request_of("letters", [])), 0, 2)
            assert nothing.probabilities_DL.shape == (0, 2)
            counted = one.counters.registry.get_sample_value
            assert counted("corpuscore_requests_total", {"front": "grpc", "code": "OK"}) == 3

    run(go())


def test_what_is_wrong_with_a_request_is_told() -> None:
    """INVALID_ARGUMENT and NOT_FOUND, without a hint to try again; the server goes on."""

    async def go() -> None:
        broken = request_of("letters", ["a"])
        broken.raw_input_contents[0] = struct.pack("<I", 1) + b"\xff"
        output = request_of("letters", ["a"])
        output.outputs.add(name="logits")
        async with door(Letters()) as one:
            for request, code, words in [
                (broken, grpc.StatusCode.INVALID_ARGUMENT, "Text 0 is not UTF-8"),
                (output, grpc.StatusCode.INVALID_ARGUMENT, "No output 'logits'"),
                (request_of("letters", ["a"] * 10_001), grpc.StatusCode.INVALID_ARGUMENT, "at most 10000"),
                (request_of("other", ["a"]), grpc.StatusCode.NOT_FOUND, "ask for 'letters'"),
                (request_of("letters", ["a"], version="f"), grpc.StatusCode.NOT_FOUND, "Version 'f'"),
                (messages.ModelInferRequest(), grpc.StatusCode.NOT_FOUND, "Model ''"),
            ]:
                error = await refused(one.stub.ModelInfer(request))
                assert error.code() == code
                assert words in error.details()
                assert "grpc-retry-pushback-ms" not in dict(error.trailing_metadata())
            raw = one.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            assert (await refused(raw(b"\xff\xff\xff"))).code() == grpc.StatusCode.INVALID_ARGUMENT
            asked = one.stub.ModelMetadata(messages.ModelMetadataRequest(name="other"))
            assert (await refused(asked)).code() == grpc.StatusCode.NOT_FOUND
            scores_of(await one.stub.ModelInfer(request_of("letters", ["a"])), 1, 2)

    run(go())


def test_a_message_beyond_the_bound() -> None:
    """Refused with its size and the bound, plain or compressed, without a hint; and the next one is answered."""

    async def go() -> None:
        async with door(Letters(), most_bytes=100_000, options=UNBOUND) as one:
            large = request_of("letters", ["x" * 3_000_000])
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                error = await refused(one.stub.ModelInfer(large, compression=compression))
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "larger than max" in error.details() or "100000" in error.details()
                assert "grpc-retry-pushback-ms" not in dict(error.trailing_metadata() or ())
            await one.stub.ModelInfer(request_of("letters", ["x"]))
            assert one.batcher.depth == one.front._coming == 0

    run(go())


def test_a_million_texts() -> None:
    """Refused by their number, before any is decoded."""

    async def go() -> None:
        async with door(Letters(), options=UNBOUND) as one:
            request = messages.ModelInferRequest(model_name="letters")
            request.inputs.add(name="text", datatype="BYTES", shape=[10**6])
            request.raw_input_contents.append(b"\0" * 4 * 10**6)
            error = await refused(one.stub.ModelInfer(request))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "1000000 texts" in error.details()

    run(go())


def test_a_full_queue_is_said_at_once_with_a_hint() -> None:
    """Beyond the bound all are refused while the model is busy; those that wait are answered."""

    async def go() -> None:
        backend = Held()
        async with door(backend, admission=Admission(5)) as one:
            first = asyncio.ensure_future(one.stub.ModelInfer(request_of("letters", ["first"])))
            await until(lambda: len(backend.begun) == 1)
            calls = [one.stub.ModelInfer(request_of("letters", [f"{number}"])) for number in range(40)]
            results = asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: sum(call.done() for call in calls) == 35)
            backend.let_go(9)
            await first
            errors = [error for error in await results if isinstance(error, grpc.aio.AioRpcError)]
            assert len(errors) == 35
            assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert all(0 < hint(error) <= 30 for error in errors)

    run(go())


def test_deadlines_and_clients_that_go() -> None:
    """What is late is told so, and neither it nor what was cancelled reaches the model."""

    async def go() -> None:
        backend = Held()
        async with door(backend) as one:
            first = asyncio.ensure_future(one.stub.ModelInfer(request_of("letters", ["first"])))
            await until(lambda: len(backend.begun) == 1)
            late = one.stub.ModelInfer(request_of("letters", ["late"]), timeout=0.3)
            gone = one.stub.ModelInfer(request_of("letters", ["gone"]))
            await until(lambda: one.batcher.depth == 2)
            gone.cancel()
            assert (await refused(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: one.batcher.depth == 0)
            backend.let_go(9)
            await first
            await one.stub.ModelInfer(request_of("letters", ["last"]), timeout=60)
        assert backend.begun == [["first"], ["last"]]

    run(go())


def test_the_token() -> None:
    """Without it, with another one and with two nothing is told; the standard health check needs none."""

    async def go() -> None:
        async with door(Letters(), token="secret") as one:
            request = request_of("letters", ["a"])
            for shown in [(), (("authorization", "Bearer other"),), (("authorization", "secret"),),
                          (("authorization", "Bearer secret"), ("authorization", "Bearer secret"))]:  # fmt: skip
                error = await refused(one.stub.ModelInfer(request, metadata=shown))
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
                assert "secret" not in error.details()
                asked = one.stub.ModelMetadata(messages.ModelMetadataRequest(name="letters"), metadata=shown)
                assert (await refused(asked)).code() == grpc.StatusCode.UNAUTHENTICATED
            await one.stub.ModelInfer(request, metadata=(("authorization", "bearer secret"),))
            health = health_pb2_grpc.HealthStub(one.channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1

    run(go())


def test_a_drain() -> None:
    """Not ready and not serving at once; what was taken is answered, and what comes is sent elsewhere."""

    async def go() -> None:
        backend = Held()
        async with door(backend) as one:
            health = health_pb2_grpc.HealthStub(one.channel)
            taken = asyncio.ensure_future(one.stub.ModelInfer(request_of("letters", ["taken"])))
            await until(lambda: len(backend.begun) == 1)
            drain = asyncio.ensure_future(one.batcher.drain())
            await one.front.not_ready()
            assert not (await one.stub.ServerReady(messages.ServerReadyRequest())).ready
            for service in ("", "inference.GRPCInferenceService", "letters"):
                assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == 2
            error = await refused(one.stub.ModelInfer(request_of("letters", ["late"])))
            assert (error.code(), hint(error)) == (grpc.StatusCode.UNAVAILABLE, 1.0)
            backend.let_go()
            scores_of(await taken, 1, 2)
            await drain

    run(go())


def test_a_body_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls without their messages take no place for longer than they may; others wait for theirs."""
    monkeypatch.setattr("corpuscore.service.grpcfront.BODY_SECONDS", 0.2)
    monkeypatch.setattr("corpuscore.service.grpcfront.BODIES", 1)

    async def go() -> None:
        async with door(Letters()) as one:
            call = one.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
            await until(lambda: one.front._coming == 1)
            patient = asyncio.ensure_future(one.stub.ModelInfer(request_of("letters", ["b"]), timeout=60))
            assert (await refused(call)).code() == grpc.StatusCode.INVALID_ARGUMENT
            await patient
            assert one.front._coming == 0

    run(go())
