"""The gate before int8: what it lets through, what it takes back, and what it says."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from corpuscore.scoring.bert.encoder import PRODUCTS, CpuEncoder, Ids, Offsets
from corpuscore.scoring.bert.int8 import Gated, calibration_texts, gated_int8, random_sequences
from corpuscore.scoring.kernels.build import load_library, why_missing
from corpuscore.scoring.weights.arrays import Floats
from tests.scoring.checkpoints import network_of

pytestmark = [
    pytest.mark.usefixtures("kernel_level"),
    pytest.mark.skipif(load_library("encoder.cpp") is None, reason=f"no native kernel: {why_missing('encoder.cpp')}"),
]

_EVERYTHING = frozenset(itertools.product(range(4), PRODUCTS))


def _probabilities(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _model(loud: int | None = None) -> transformers.BertForSequenceClassification:
    """Four layers of random weights; in the `loud` one a few inputs of the last product are far above the rest."""
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 90, "num_labels": 6}
    config = transformers.BertConfig(num_hidden_layers=4, num_attention_heads=2, **sizes)
    model = transformers.BertForSequenceClassification(config)
    model.eval()  # type: ignore[no-untyped-call]
    model.classifier.weight.data *= 20
    if loud is not None:
        with torch.no_grad():
            layer = f"bert.encoder.layer.{loud}"
            model.get_parameter(f"{layer}.intermediate.dense.bias")[::16] += 300  # more than stay in fp32
            model.get_parameter(f"{layer}.output.dense.weight").mul_(8)
    return model


def _sequences() -> tuple[Ids, Offsets]:
    first, last = np.array([2], np.int32), np.array([3], np.int32)
    sequences = random_sequences(first, last, 90, count=120)
    return np.concatenate(sequences), np.cumsum([0, *map(len, sequences)])


def _gated(model: transformers.BertForSequenceClassification, limit: float) -> Gated:
    return gated_int8(network_of(model), *_sequences(), _probabilities, threads=1, limit=limit)


def test_a_quiet_model_runs_wholly_in_int8() -> None:
    """Nothing is kept back, and the measured change is a real one within the limit."""
    found = _gated(_model(), 0.02)
    assert found.int8 == _EVERYTHING
    assert 0 < found.change < 0.02


def test_the_worst_layer_goes_back_to_fp32() -> None:
    """A loud layer's last product is taken out of int8; some of the others stay."""
    found = _gated(_model(loud=1), 0.0004)
    assert (1, "down") not in found.int8
    assert found.int8
    assert found.change < 0.0004


def test_a_limit_that_int8_cannot_keep_means_fp32(caplog: pytest.LogCaptureFixture) -> None:
    """Everything runs in fp32, bit for bit, and a warning states the measured change."""
    model, (ids, offsets) = _model(), _sequences()
    with caplog.at_level(logging.WARNING):
        found = _gated(model, 1e-9)
    assert (found.int8, found.change) == (frozenset(), 0.0)
    assert "all in fp32" in caplog.text
    exact = CpuEncoder(network_of(model)).logits(ids, offsets, threads=1)
    np.testing.assert_array_equal(found.encoder.logits(ids, offsets, threads=1), exact)


def test_balancing_and_outliers_lower_the_error() -> None:
    """Knowing the largest inputs makes int8 much better where a few inputs are huge."""
    model, (ids, offsets) = _model(), _sequences()
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.0.intermediate.dense.bias")[:2] += 100
    network = network_of(model)
    logits, largest = CpuEncoder(network).observe(ids, offsets, threads=1)
    exact = _probabilities(logits)
    plain, balanced = (
        np.abs(_probabilities(CpuEncoder(network, _EVERYTHING, known).logits(ids, offsets, threads=1)) - exact).mean()
        for known in (None, largest)
    )
    assert balanced < plain / 4


def test_the_largest_inputs_are_those_of_the_network() -> None:
    """The first product of the first layer sees the embeddings, and its largest values are theirs, on any threads."""
    model, (ids, offsets) = _model(), _sequences()
    encoder = CpuEncoder(network_of(model))
    logits, largest = encoder.observe(ids, offsets, threads=3)
    np.testing.assert_array_equal(logits, encoder.logits(ids, offsets, threads=1))
    np.testing.assert_array_equal(largest, encoder.observe(ids, offsets, threads=1)[1])
    seen = largest[:64]
    with torch.inference_mode():
        rows = [
            model.bert.embeddings(torch.from_numpy(ids[a:b].astype(np.int64))[None])[0]
            for a, b in itertools.pairwise(offsets)
        ]
    np.testing.assert_allclose(seen, torch.cat(rows).abs().amax(0).numpy(), rtol=1e-5)


def test_calibration_texts_are_many_short_and_long() -> None:
    """They are distinct, the same at each call, and of very different lengths."""
    texts = calibration_texts()
    assert texts == calibration_texts()
    assert len(set(texts)) > 0.9 * len(texts)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 12
    assert max(lengths) > 60
