"""The batcher around a model without torch: who shares a pass with whom, who goes first, who is let go."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest

from corpuscore.errors import Draining, Expired, MessageTooLarge, ModelError, Overloaded
from corpuscore.records import LongDocuments, Skipped
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Tokens
from corpuscore.service.admission import Admission
from corpuscore.service.batching import Batcher
from tests.scoring.letters import Letters, LettersByCore, PipelinedLetters, letter_scores
from tests.service.held import Held, HeldByCore, batcher, run, until

TEXTS = [f"text {number} " + "aeiou"[: number % 6] for number in range(40)]


def expected(texts: list[str]) -> np.ndarray:
    """What Letters says of texts within its window."""
    return np.array([letter_scores(text[:30]) for text in texts], np.float32).reshape(-1, 2)


def value(service: Batcher, name: str) -> float | None:
    """A metric without labels."""
    return service._counters.registry.get_sample_value(name)


@pytest.mark.parametrize("backend", [Letters, PipelinedLetters, LettersByCore])
def test_everyone_gets_their_own(backend: type[Letters]) -> None:
    """Many requests at once, of none to many texts with repeats: each has its rows, counts and flags in order."""

    async def go() -> None:
        rng = random.Random(3)
        requests = [[rng.choice(TEXTS) * rng.choice([1, 1, 5]) for _ in range(size % 23)] for size in range(60)]
        async with batcher(backend()) as service:
            answers = await asyncio.gather(*map(service.infer, requests))
            assert service.depth == 0
            assert value(service, "corpuscore_queue_documents") == 0
            assert value(service, "corpuscore_documents_total") == sum(len(set(texts)) for texts in requests)
        for texts, scores in zip(requests, answers, strict=True):
            np.testing.assert_array_equal(scores.probabilities_DL, expected(texts))
            assert scores.tokens_D.tolist() == [min(len(text), 30) + 2 for text in texts]
            assert scores.truncated_D.tolist() == [len(text) > 30 for text in texts]
            assert scores.failed == {}

    run(go())


@pytest.mark.parametrize("how", ["mean", "max"])
def test_long_documents(how: LongDocuments) -> None:
    """A document whose windows lie in several passes has the scores that the engine gives it."""

    async def go() -> None:
        texts = ["".join(random.Random(seed).choices("aeioxyz", k=10 + 70 * seed)) for seed in range(9)]
        alone = Engine(Letters(), max_tokens=32, long_documents=how, token_budget=64).score(texts)
        async with batcher(Letters(), how=how) as service:
            whole, *singles = await asyncio.gather(service.infer(texts), *(service.infer([text]) for text in texts))
            assert value(service, "corpuscore_documents_total") == 18
        np.testing.assert_array_equal(whole.probabilities_DL, alone)
        np.testing.assert_array_equal(np.concatenate([one.probabilities_DL for one in singles]), alone)
        assert whole.tokens_D.tolist() == [len(text) + 2 for text in texts]

    run(go())


def test_those_that_wait_share_a_pass() -> None:
    """What came while a pass ran goes through together, within the budget."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            first = asyncio.create_task(service.infer(["first"]))
            await until(lambda: len(backend.begun) == 1)
            others = [asyncio.create_task(service.infer([f"other {number}"])) for number in range(9)]
            await until(lambda: service._turns.sequences == 9)
            assert service.depth == 9
            backend.let_go(4)
            await asyncio.gather(first, *others)
        assert [len(texts) for texts in backend.begun] == [1, 7, 2]  # of 9 tokens each, 64 at the most

    run(go())


def test_a_core_that_is_free_begins_a_pass_of_its_own() -> None:
    """It waits for no other; what comes while both are at work waits for the first of them, and goes together."""

    async def go() -> None:
        backend = HeldByCore()
        async with batcher(backend) as service:
            tasks = [asyncio.create_task(service.infer(["first"]))]
            await until(lambda: len(backend.begun) == 1)
            tasks.append(asyncio.create_task(service.infer(["second"])))
            await until(lambda: len(backend.begun) == 2)
            tasks += [asyncio.create_task(service.infer([f"other {number}"])) for number in range(3)]
            await until(lambda: service._turns.sequences == 3)
            assert backend.begun == [["first"], ["second"]]
            backend.let_go()
            await until(lambda: len(backend.begun) == 3)
            assert len(backend.begun[2]) == 3
            backend.let_go(2)
            await asyncio.gather(*tasks)

    run(go())


def test_cores_that_are_free_share_a_request() -> None:
    """Its texts are divided among them by tokens, so that it is answered as soon as with a pass on all of them."""

    async def go() -> None:
        backend = HeldByCore()
        async with batcher(backend) as service:
            task = asyncio.create_task(service.infer([f"text {number}" for number in range(6)]))  # 8 tokens each
            await until(lambda: len(backend.begun) == 2)
            assert [len(texts) for texts in backend.begun] == [3, 3]
            backend.let_go(2)
            np.testing.assert_array_equal(
                (await task).probabilities_DL, expected([f"text {number}" for number in range(6)])
            )

    run(go())


def test_a_pass_with_room_waits_for_more() -> None:
    """While nothing runs, a request waits for others for so long, and no longer; a full pass does not wait."""

    async def go() -> None:
        backend = Held(free=True)
        async with batcher(backend, max_wait_seconds=0.4) as service:
            began = time.monotonic()
            one = asyncio.create_task(service.infer(["one"]))
            await asyncio.sleep(0.05)
            await asyncio.gather(one, service.infer(["two"]))
            assert time.monotonic() - began >= 0.4
            assert backend.begun == [["one", "two"]]
        async with batcher(backend, max_wait_seconds=600) as service:
            await service.infer([f"{number}" * 30 for number in range(2)])

    run(go())


def test_a_few_texts_go_before_the_rest_of_many() -> None:
    """A small request is in the next pass, and the large one goes on in it, too."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            large = asyncio.create_task(service.infer([f"large {number:03}" for number in range(200)]))
            await until(lambda: len(backend.begun) == 1 and service._turns.sequences > 100)
            small = asyncio.create_task(service.infer(["small a", "small b"]))
            await until(lambda: len(service._turns._fresh) == 1)
            backend.let_go(2)
            await small
            assert {"small a", "small b"} < set(backend.begun[1])
            assert any("large" in text for text in backend.begun[1])
            assert not large.done()
            backend.free = True
            backend.let_go(100)
            np.testing.assert_array_equal(
                (await large).probabilities_DL, expected([f"large {number:03}" for number in range(200)])
            )

    run(go())


def test_a_stream_of_small_ones_does_not_hold_up_a_large_one() -> None:
    """With more small requests than a pass holds, the large one still has its turn in each."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            large = asyncio.create_task(service.infer([f"large {number:03}" for number in range(60)]))
            await until(lambda: len(backend.begun) == 1 and service._turns.sequences > 10)
            small = [asyncio.create_task(service.infer([f"small {number:03}"])) for number in range(60)]
            await until(lambda: len(service._turns._fresh) == 60)
            for passes in range(2, 6):
                backend.let_go()
                await until(lambda passes=passes: len(backend.begun) == passes)  # type: ignore[misc]
            assert all(any("large" in text for text in texts) for texts in backend.begun)
            backend.let_go(100)
            await asyncio.gather(large, *small)

    run(go())


def test_what_nobody_waits_for_is_dropped() -> None:
    """Cancelled and late requests never reach the model, and leave the queue at once."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            first = asyncio.create_task(service.infer(["first"]))
            await until(lambda: len(backend.begun) == 1)
            cancelled = asyncio.create_task(service.infer(["cancelled"]))
            late = asyncio.create_task(service.infer(["late"], time.monotonic() + 0.05))
            kept = asyncio.create_task(service.infer(["kept"], time.monotonic() + 60))
            await until(lambda: service._turns.sequences == 3)
            cancelled.cancel()
            with pytest.raises(Expired, match="deadline passed"):
                await late
            assert service.depth == 1
            backend.let_go(9)
            await asyncio.gather(first, kept)
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(Expired):
                await service.infer(["too late"], time.monotonic() - 1)
        assert backend.begun == [["first"], ["kept"]]
        assert backend.texts_seen == 4

    run(go())


def test_a_full_queue_refuses_at_once() -> None:
    """Beyond the bounds of requests and of memory, with a hint; what waits is not touched, and room is used again."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend, admission=Admission(3, 10, 3_000)) as service:
            first = asyncio.create_task(service.infer(["first"]))
            await until(lambda: len(backend.begun) == 1)
            waiting = [asyncio.create_task(service.infer([f"{number}"])) for number in range(3)]
            await until(lambda: service.depth == 3)
            with pytest.raises(Overloaded, match="3 requests wait") as refused:
                await service.infer(["one more"])
            assert 0 < refused.value.retry_seconds <= 30
            backend.let_go(9)
            await asyncio.gather(first, *waiting)
            with pytest.raises(MessageTooLarge, match="11 texts"):
                await service.infer(["a"] * 11)
            backend.free = False
            while backend._passes.acquire(blocking=False):
                pass
            large = asyncio.create_task(service.infer(["x" * 5_000, "y" * 5_000]))  # taken, since nobody waits
            await until(lambda: service._turns._others != ())
            backend.let_go(9)
            await large

    run(go())


def test_memory_of_what_waits_is_bounded() -> None:
    """Texts of more bytes than may wait are refused while others wait."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend, admission=Admission(100, 10, 20_000)) as service:
            first = asyncio.create_task(service.infer(["first"]))
            await until(lambda: len(backend.begun) == 1)
            waiting = asyncio.create_task(service.infer(["x" * 15_000]))
            await until(lambda: service.depth == 1)
            with pytest.raises(Overloaded, match="bytes wait"):
                await service.infer(["y" * 15_000])
            backend.let_go(9)
            await asyncio.gather(first, waiting)

    run(go())


def test_a_drain_answers_all_that_was_taken() -> None:
    """New requests are refused at once; the drain ends with the last answer."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            taken = [asyncio.create_task(service.infer([f"taken {number}"])) for number in range(20)]
            await until(lambda: len(backend.begun) == 1)
            ready = [service.ready]
            drain = asyncio.create_task(service.drain())
            await asyncio.sleep(0)
            assert [*ready, service.ready] == [True, False]
            with pytest.raises(Draining):
                await service.infer(["too late"])
            assert not drain.done()
            backend.let_go(99)
            await drain
            assert all(task.done() for task in taken)
            np.testing.assert_array_equal((await taken[7]).probabilities_DL, expected(["taken 7"]))

    run(go())


def test_what_waits_when_it_is_closed_is_refused() -> None:
    """Nobody is left waiting for threads that have ended."""

    async def go() -> None:
        backend = Held()
        async with batcher(backend) as service:
            first = asyncio.create_task(service.infer(["first"]))
            await until(lambda: len(backend.begun) == 1)
            second = asyncio.create_task(service.infer(["second"]))
            await until(lambda: service._turns.sequences == 1)
            backend.let_go()
            service.close()
            with pytest.raises(Draining):
                await second
            await asyncio.gather(first, return_exceptions=True)

    run(go())


class Choosy(Letters):
    """Cannot tokenize one text, nor hold another one in memory."""

    def tokenize(self, texts: list[str], max_tokens: int | None) -> Tokens:  # type: ignore[override]
        """Letters, but for one text."""
        if "broken" in texts:
            raise ValueError("no such letter")
        return super().tokenize(texts, max_tokens)


def test_a_document_that_fails_costs_itself_alone() -> None:
    """Others in its request and in its pass have their scores; it has none, and a reason."""

    async def go() -> None:
        texts = ["fine", "broken", "a" * 30, "good", "broken"]
        async with batcher(Choosy(memory=20)) as service:
            mixed, alone, other = await asyncio.gather(
                service.infer(texts), service.infer(["broken"]), service.infer(["other"])
            )
            rejects = service._counters.registry.get_sample_value("corpuscore_rejects_total", {"reason": "failed"})
            assert rejects == 2
            assert service.depth == 0
        memory = Skipped("out_of_memory", "out of memory at 32 tokens")
        broken = Skipped("failed", "ValueError: no such letter")
        assert mixed.failed == {1: broken, 2: memory, 4: broken}
        assert np.isnan(mixed.probabilities_DL[[1, 2, 4]]).all()
        np.testing.assert_array_equal(mixed.probabilities_DL[[0, 3]], expected(["fine", "good"]))
        assert alone.failed == {0: broken}
        np.testing.assert_array_equal(other.probabilities_DL, expected(["other"]))

    run(go())


class Dead(Letters):
    """A model that fails for every text."""

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Fail."""
        raise ValueError("a broken weight")


class Odd(Letters):
    """A model that answers with too few rows."""

    def forward(self, tokens: Tokens) -> np.ndarray:
        """One row too few."""
        return super().forward(tokens)[1:]


@pytest.mark.parametrize(("backend", "words"), [(Dead, "fails for every text"), (Odd, "gave scores of shape")])
def test_a_model_that_fails_for_good_ends_the_service(backend: type[Letters], words: str) -> None:
    """Everyone who waits gets the error, and so does whoever runs the service."""

    async def go() -> None:
        async with batcher(backend()) as service:
            answers = [service.infer([f"{number}", f"{number} b", f"{number} c"]) for number in range(9)]
            for answer in await asyncio.gather(*answers, return_exceptions=True):
                assert isinstance(answer, ModelError)
            assert words in str(await service.failure())
            assert not service.ready
            with pytest.raises(ModelError):
                await service.infer(["another"])

    run(go())
