"""What the service counts, read back as Prometheus reads it."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_metrics

from corpuscore.service.counters import DOCUMENTS, SECONDS, TOKENS, Counters

MODEL = {"name": "letters", "fingerprint": "0" * 16, "precision": "fp32", "backend": "letters"}
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def read(counters: Counters, accept: str = "") -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, in the order of their names."""
    page, media_type = counters.page(accept)
    parse = open_metrics if media_type.startswith("application/openmetrics-text") else text_metrics
    samples = (sample for family in parse(page.decode()) for sample in family.samples)
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples}


@pytest.mark.parametrize("accept", ["", "text/plain", OPEN_METRICS], ids=["nothing", "text", "open"])
def test_all_that_was_told_is_read_back(accept: str) -> None:
    """Every call is found again under its name, in both forms of the page."""
    counters = Counters(MODEL)
    counters.watch_queue(requests=lambda: 3, documents=lambda: 40)
    counters.waited(0.004)
    counters.passed(documents=5, tokens=96, seconds=0.03)
    counters.passed(documents=1, tokens=4, seconds=0.0004)
    counters.rejected("not_finite", 2)
    counters.answered("grpc", "OK", 0.05)
    counters.answered("http", "429", 0.0001)
    seen = read(counters, accept)
    expected = {
        ("corpuscore_model_info", "letters", "0" * 16, "letters", "fp32"): 1,
        ("corpuscore_requests_total", "OK", "grpc"): 1,
        ("corpuscore_requests_total", "429", "http"): 1,
        ("corpuscore_documents_total",): 6,
        ("corpuscore_tokens_total",): 100,
        ("corpuscore_rejects_total", "not_finite"): 2,
        ("corpuscore_queue_requests",): 3,
        ("corpuscore_queue_documents",): 40,
        ("corpuscore_queue_seconds_count",): 1,
        ("corpuscore_pass_seconds_bucket", "0.001"): 1,
        ("corpuscore_pass_seconds_bucket", "0.05"): 2,
        ("corpuscore_pass_tokens_bucket", "64.0"): 1,
        ("corpuscore_pass_tokens_sum",): 100,
        ("corpuscore_pass_documents_sum",): 6,
        ("corpuscore_request_seconds_bucket", "grpc", "0.02"): 0,
        ("corpuscore_request_seconds_bucket", "grpc", "0.05"): 1,
    }
    assert {name: seen[name] for name in expected} == expected


def test_the_page_is_what_the_accept_header_asks_for() -> None:
    """OpenMetrics only for whoever asks for it; a header of rubbish gives text."""
    counters = Counters(MODEL)
    assert counters.page(OPEN_METRICS)[1].startswith("application/openmetrics-text; version=1.0.0")
    assert counters.page(OPEN_METRICS)[0].endswith(b"# EOF\n")
    for accept in ("", "text/html", "*/*", ";;,=;q=x"):
        assert counters.page(accept)[1].startswith("text/plain; version=0.0.4")


def test_two_services_in_one_process_count_apart() -> None:
    """Each has its registry, and the process's own stays as it was."""
    first, second = Counters(MODEL), Counters(MODEL)
    first.answered("http", "200", 0.001)
    assert read(first)["corpuscore_requests_total", "200", "http"] == 1
    assert ("corpuscore_requests_total", "200", "http") not in read(second)


def test_threads_lose_nothing() -> None:
    """What many threads tell at once is all counted."""
    counters = Counters(MODEL)

    def tell() -> None:
        for _ in range(500):
            counters.answered("http", "200", 0.002)
            counters.passed(documents=2, tokens=10, seconds=0.001)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = read(counters)
    assert seen["corpuscore_requests_total", "200", "http"] == 2_000
    assert seen[("corpuscore_documents_total",)] == 4_000


@pytest.mark.parametrize("bounds", [SECONDS, TOKENS, DOCUMENTS], ids=["seconds", "tokens", "documents"])
def test_buckets_rise(bounds: tuple[float, ...]) -> None:
    """Bounds that do not rise would count nothing right."""
    assert list(bounds) == sorted(set(bounds))
