"""A corpus streams through a service that is slow, refuses, dies, lies, or changes: nothing lost, nothing doubled."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import dask
import grpc
import numpy as np
import pytest

from corpuscore.errors import JobError, ModelError, ServiceUnavailable
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.remote import channel
from corpuscore.scoring.remote.scorer import RemoteScorer
from corpuscore.scoring.scorer import Meter
from tests.servers.inference import CARD, Script, answering, expected
from tests.servers.tls import make_authority

TEXTS = [f"{'ae' * (number % 17)} text {number}" for number in range(600)]


@pytest.fixture
def script() -> Script:
    """What the server does; changed by the test."""
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    """Its address."""
    with answering(script) as found:
        yield found


def scorer_of(url: str, **options: Any) -> RemoteScorer:
    """With requests of about 200 tokens."""
    found = load_scorer(url, token_budget=200, **options)
    assert isinstance(found, RemoteScorer)
    return found


def aborting(code: grpc.StatusCode, words: str, times: int | None = None, **trailing: str) -> Callable[..., None]:
    """Refuse all requests, or the first ones."""
    count = itertools.count()

    def before(_texts: list[str], context: Any) -> None:
        if times is None or next(count) < times:
            context.set_trailing_metadata(tuple((key.replace("_", "-"), value) for key, value in trailing.items()))
            context.abort(code, words)

    return before


def test_a_stream_comes_out_in_order_with_each_text_sent_once(script: Script, url: str) -> None:
    """Several requests are under way, their order is lost on the way, and rows are where they belong."""

    def before(texts: list[str], _context: Any) -> None:
        time.sleep(0.001 * (len(texts[0]) % 5) + 0.002)

    script.before = before
    meter = Meter()
    batches = [TEXTS[:7], [], TEXTS[3:300], TEXTS]
    scores = list(scorer_of(url).stream(batches, meter))
    for batch, found in zip(batches, scores, strict=True):
        np.testing.assert_array_equal(found.probabilities_DL, expected(batch).reshape(-1, 2))
        assert found.tokens_D.tolist() == [len(text) + 2 for text in batch]
        assert not found.failed
    sent = [text for texts in script.requests for text in texts]
    assert sorted(sent) == sorted(TEXTS)
    assert script.most > 1
    assert len(script.requests) > 10
    assert meter.unique_texts == len(TEXTS)
    assert meter.tokens == sum(len(text) + 2 for text in TEXTS)


def test_the_description_is_the_services(script: Script, url: str) -> None:
    """Labels, activation, fingerprint and precision, by a plan and by a worker; nothing is scored for it."""
    info = describe_scorer(url, max_tokens=512, long_documents="truncate")
    assert info == load_scorer(url).info
    assert (info.labels, info.activation, info.fingerprint) == (CARD.labels, CARD.activation, CARD.fingerprint)
    assert (info.precision, info.backend, info.model) == ("fp32", "service", url)
    assert not script.requests


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, "leave --device out"),
        ({"backend": "bert"}, "leave --backend out"),
        ({"precision": "int8"}, "leave --precision out"),
        ({"allow_pickle": True}, "No weights are read"),
        ({"max_tokens": 128}, "--max-tokens 512"),
        ({"long_documents": "mean"}, "--long-documents truncate"),
    ],
)
def test_an_option_that_the_service_does_otherwise_is_refused(url: str, options: dict[str, Any], words: str) -> None:
    """With the one that fits."""
    with pytest.raises(JobError, match=words):
        describe_scorer(url, **options)


def test_a_service_that_says_nothing_is_described_by_its_address(script: Script, url: str) -> None:
    """Labels and activation are asked for; the fingerprint tells versions and labels apart."""
    script.plain, script.card, script.version = True, replace(CARD, versions=("1",)), "1"
    with pytest.raises(JobError, match="labels=joy,fear"):
        describe_scorer(url)
    with pytest.raises(JobError, match="activation=softmax"):
        describe_scorer(url + "?labels=a,b")
    with pytest.raises(ModelError, match="2 columns"):
        describe_scorer(url + "?labels=a,b,c&activation=sigmoid")
    first = describe_scorer(url + "?labels=a,b&activation=sigmoid")
    assert first.labels == ("a", "b")
    assert len(first.fingerprint) == 16
    scorer = scorer_of(url + "?labels=a,b&activation=sigmoid")
    np.testing.assert_array_equal(scorer.score(TEXTS[:50]), expected(TEXTS[:50]))
    script.card = replace(script.card, versions=("2",))
    assert describe_scorer(url + "?labels=a,b&activation=sigmoid").fingerprint != first.fingerprint
    with pytest.raises(ModelError, match="another model"):
        scorer.score(TEXTS)


def test_a_document_that_is_refused_is_a_reject_with_the_servers_words(script: Script, url: str) -> None:
    """It is found by halves, the others are scored, and no refused request is sent again as it was."""

    def before(texts: list[str], context: Any) -> None:
        if any("text 77" in text for text in texts):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no sevens here")

    script.before = before
    (scores,) = scorer_of(url).stream([TEXTS])
    assert list(scores.failed) == [77]
    assert scores.failed[77].detail == "INVALID_ARGUMENT: no sevens here"
    good = [at for at in range(len(TEXTS)) if at != 77]
    np.testing.assert_array_equal(scores.probabilities_DL[good], expected([TEXTS[at] for at in good]))
    sent = list(map(tuple, script.requests))
    assert len(sent) == len(set(sent))


def test_a_service_that_refuses_everything_is_one_error(script: Script, url: str) -> None:
    """Not a table of rejects."""
    script.before = aborting(grpc.StatusCode.INVALID_ARGUMENT, "not today")
    with pytest.raises(ModelError, match=r"fails for every text.*not today"):
        scorer_of(url).score(TEXTS)
    assert len(script.requests) < 400


def test_full_queues_and_short_outages_cost_nothing(script: Script, url: str) -> None:
    """RESOURCE_EXHAUSTED with its hint, UNAVAILABLE and INTERNAL are tried again; fewer requests are under way."""
    refusals = [
        aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 5, grpc_retry_pushback_ms="30"),
        aborting(grpc.StatusCode.UNAVAILABLE, "restarting", 2),
        aborting(grpc.StatusCode.INTERNAL, "oops", 2),
    ]

    def before(texts: list[str], context: Any) -> None:
        for refuse in refusals:
            refuse(texts, context)

    script.before = before
    np.testing.assert_array_equal(scorer_of(url).score(TEXTS), expected(TEXTS))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "CORPUSCORE_SERVICE_TOKEN"),
        (grpc.StatusCode.NOT_FOUND, "correct the name"),
        (grpc.StatusCode.UNIMPLEMENTED, "Open Inference Protocol"),
    ],
)
def test_what_no_request_gets_over_is_one_error_at_once(
    script: Script, url: str, code: grpc.StatusCode, words: str
) -> None:
    """With the next step."""
    script.before = aborting(code, "no")
    with pytest.raises(ModelError, match=words):
        scorer_of(url).score(TEXTS)


def test_a_row_of_nan_is_asked_for_once_more(script: Script, url: str) -> None:
    """By itself; what stays NaN is a reject, what does not is scored."""
    seen: dict[str, int] = {}

    def change(texts: list[str], rows: np.ndarray) -> np.ndarray:
        for at, text in enumerate(texts):
            seen[text] = seen.get(text, 0) + 1
            if text == TEXTS[5] or (text == TEXTS[9] and seen[text] == 1):
                rows[at] = np.nan
        return rows

    script.change = change
    (scores,) = scorer_of(url).stream([TEXTS])
    assert {at: why.reason for at, why in scores.failed.items()} == {5: "not_finite"}
    assert (seen[TEXTS[5]], seen[TEXTS[9]], seen[TEXTS[7]]) == (2, 2, 1)
    np.testing.assert_array_equal(scores.probabilities_DL[9], expected([TEXTS[9]])[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _texts, rows: rows[:-1], r"of shape \[\d+, 2\].*It is FP32"),
        (lambda _texts, rows: np.hstack([rows, rows]), r"of shape \[\d+, 4\]"),
        (lambda _texts, rows: rows * 40 - 20, "Scores are probabilities"),
    ],
)
def test_an_answer_that_cannot_be_is_one_error(
    script: Script, url: str, change: Callable[..., np.ndarray], words: str
) -> None:
    """Too few rows, other columns, logits."""
    script.change = change
    with pytest.raises(ModelError, match=words):
        scorer_of(url).score(TEXTS)


def test_another_model_in_the_middle_stops_the_stream(script: Script, url: str) -> None:
    """Whatever was scored of the stream is not handed on as a whole one."""

    def before(_texts: list[str], _context: Any) -> None:
        if len(script.requests) >= 8:
            script.is_another_model()

    script.before = before
    scorer = scorer_of(url)
    with pytest.raises(ModelError, match="another model"):
        scorer.score(TEXTS)
    with pytest.raises(ModelError, match=f"{'f' * 16}, planned was {CARD.fingerprint}"):
        scorer.score(TEXTS)


def test_a_service_that_dies_and_comes_back_costs_nothing(script: Script) -> None:
    """Requests wait while it is gone, and all rows are there in the end."""
    with ExitStack() as first:
        url = first.enter_context(answering(script))
        port = int(url.rpartition(":")[2].partition("/")[0])
        dying = threading.Event()

        def before(_texts: list[str], _context: Any) -> None:
            if len(script.requests) > 5:
                dying.set()
                time.sleep(0.5)

        script.before = before
        rows: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: rows.append(scorer_of(url).score(TEXTS)))
        thread.start()
        assert dying.wait(30)
    time.sleep(0.5)
    script.before = lambda _texts, _context: None
    with answering(script, port):
        thread.join(60)
    np.testing.assert_array_equal(rows[0], expected(TEXTS))


def test_a_service_that_stays_away_is_a_transient_error(script: Script) -> None:
    """After the patience, for a stream that runs and for a plan; when it is back, the next stream goes on."""
    with dask.config.set({"corpuscore.wait-for-service": "1s"}):
        with answering(script) as url:
            scorer = scorer_of(url)
            port = int(url.rpartition(":")[2].partition("/")[0])
            stream = scorer.stream([[text] for text in TEXTS])
            next(stream)
        with pytest.raises(ServiceUnavailable, match="WAIT_FOR_SERVICE"):
            list(stream)
        with pytest.raises(ServiceUnavailable, match="did not answer"):
            describe_scorer(url)
    with answering(script, port):
        np.testing.assert_array_equal(scorer.score(TEXTS), expected(TEXTS))


def test_a_service_that_is_ready_and_gives_no_scores_is_not_waited_for_without_end(script: Script, url: str) -> None:
    """Each probe finds it ready, each request finds it gone, and the patience is over all the same."""
    script.before = aborting(grpc.StatusCode.UNAVAILABLE, "no instance of the model")
    with (
        dask.config.set({"corpuscore.wait-for-service": "1s"}),
        pytest.raises(ServiceUnavailable, match="no instance of the model"),
    ):
        scorer_of(url).score(TEXTS)


def test_a_text_that_is_too_slow_is_a_reject(script: Script, url: str) -> None:
    """Where others are not; a service that is too slow for any is a transient error."""

    def before(texts: list[str], _context: Any) -> None:
        if TEXTS[3] in texts:
            time.sleep(1.0)

    script.before = before
    with dask.config.set({"corpuscore.service-answer": "300ms"}):
        (scores,) = scorer_of(url).stream([TEXTS[:6]])
        assert {at: why.reason for at, why in scores.failed.items()} == {3: "hung"}
        script.before = lambda _texts, _context: time.sleep(1.0)
        with pytest.raises(ServiceUnavailable, match="does not answer within 0.3 s"):
            scorer_of(url).score(TEXTS[:1])


def test_closing_a_stream_ends_its_requests(script: Script, url: str) -> None:
    """At once, and another stream of the scorer is not touched."""
    release = threading.Event()

    def before(_texts: list[str], _context: Any) -> None:
        if len(script.requests) > 20:
            release.wait(20)

    script.before = before
    scorer = scorer_of(url)
    stream = scorer.stream([[text] for text in TEXTS])
    next(stream)
    began = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 10
    release.set()
    np.testing.assert_array_equal(scorer.score(TEXTS[:9]), expected(TEXTS[:9]))


def test_the_token_is_shown_to_the_service_alone(
    script: Script, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the header; a server that repeats it is quoted without."""
    monkeypatch.setenv("CORPUSCORE_SERVICE_TOKEN", "Zq7mark")
    scorer = scorer_of(url)
    scorer.score(TEXTS[:3])
    assert script.shown == ["Bearer Zq7mark"]
    assert not caplog.messages  # it does not leave this machine
    script.before = aborting(grpc.StatusCode.PERMISSION_DENIED, "Zq7mark may not")
    with pytest.raises(ModelError) as refused:
        scorer.score(TEXTS)
    assert "Zq7mark" not in str(refused.value)
    assert "may not" in str(refused.value)


def test_tls_trusts_the_authority_that_the_environment_names(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And shows the client's certificate where one is asked for; half a pair and no file are refused in words."""
    authority = make_authority(tmp_path_factory.mktemp("tls") / "a")
    pem = authority.pem.read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)], authority.ca.read_bytes(), require_client_auth=True)
    for name, path in (("CA", authority.ca), ("CERT", authority.pem)):
        monkeypatch.setenv(f"CORPUSCORE_SERVICE_{name}", str(path))
    with pytest.raises(JobError, match="needs its key"):
        describe_scorer("grpcs://localhost:1/letters")
    monkeypatch.setenv("CORPUSCORE_SERVICE_KEY", str(authority.pem))
    channel_options = (("grpc.ssl_target_name_override", "dask"),)
    monkeypatch.setattr(channel, "_OPTIONS", channel._OPTIONS | dict(channel_options))
    with answering(Script(), credentials=credentials) as url:
        assert describe_scorer(url).labels == CARD.labels
        np.testing.assert_array_equal(scorer_of(url).score(TEXTS[:9]), expected(TEXTS[:9]))
    monkeypatch.setenv("CORPUSCORE_SERVICE_CA", "/nowhere/ca.pem")
    with pytest.raises(JobError, match="cannot be read"):
        describe_scorer(url)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As where grpcio is not installed."""
    for name in [name for name in sys.modules if name == "grpc" or name.startswith("corpuscore.scoring.remote.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("corpuscore.scoring.remote.scorer")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(JobError, match=r"corpuscore\[service\]"):
        describe_scorer(url)
