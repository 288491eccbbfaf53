"""Measure the GPU path in one command, for BENCHMARKS.md:

    python tests/gpu/measure.py --texts reddit-10k.csv.gz --text-column body

A classifier of RoBERTa-base size with 28 labels and random weights (their values do not change the time) scores the
texts, repeated to --documents with a number in front so that no two are alike: from text to probabilities,
tokenization included, and the forward pass alone. Prints JSON: medians over rounds, the bare matrix product's rate
and the share of it, the busy seconds of each step, and what the GPU is.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from corpuscore.benchmark import read_texts
from corpuscore.benchmark.limits import checkpoint_operations, product_rate
from corpuscore.scoring import load_scorer
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.packing import pack, take
from corpuscore.scoring.scorer import Meter, Pipelined

LABELS = 28
BATCH = 4_096


def write_roberta_base(folder: Path, texts: list[str]) -> None:
    """RoBERTa-base with random weights, and a byte-level tokenizer trained on the texts."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=50_265, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = transformers.RobertaConfig(
        vocab_size=50_265,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        problem_type="multi_label_classification",
        id2label={index: f"label {index}" for index in range(LABELS)},
        label2id={f"label {index}": index for index in range(LABELS)},
    )
    transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def end_to_end(scorer: Any, texts: list[str]) -> tuple[float, Meter]:
    """Seconds from text to probabilities, and what the steps did."""
    meter = Meter()
    start = time.perf_counter()
    for _ in scorer.stream((texts[at : at + BATCH] for at in range(0, len(texts), BATCH)), meter):
        pass
    return time.perf_counter() - start, meter


def forward_alone(scorer: Engine, texts: list[str]) -> tuple[float, int]:
    """Seconds and tokens of the forward pass on packs that are ready, two under way at once."""
    backend: Any = scorer._backend
    tokens = backend.tokenize(texts, 512)
    packs = [take(tokens, group) for group in pack(tokens.lengths, backend.token_budget)]
    submit = backend.submit if isinstance(backend, Pipelined) else lambda one: partial(backend.forward, one)
    start = time.perf_counter()
    under_way = None
    for one in packs:
        started = submit(one)
        if under_way is not None:
            under_way()
        under_way = started
    if under_way is not None:
        under_way()
    return time.perf_counter() - start, len(tokens.ids)


@click.command()
@click.option("--texts", "uri", required=True)
@click.option("--text-column", default="text", show_default=True)
@click.option("--documents", default=500_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cpu tries out this script.")
@click.option("--model", help="A checkpoint instead of the random one.")
def main(
    uri: str, text_column: str, documents: int, rounds: int, precision: str, device: str, model: str | None
) -> None:
    """Print the figures as JSON."""
    some = read_texts(uri, text_column, None)
    texts = [f"{number} {some[number % len(some)]}" for number in range(documents)]
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            write_roberta_base(Path(folder), some)
        path = model or folder
        scorer = load_scorer(path, device=device, precision=precision)
        assert isinstance(scorer, Engine)
        end_to_end(scorer, texts[: max(1, documents // 10)])  # traces, compiles and captures
        runs = [end_to_end(scorer, texts) for _ in range(rounds)]
        alone = [forward_alone(scorer, texts[: max(1, documents // 5)]) for _ in range(rounds)]
        operations = checkpoint_operations(find_checkpoint(path).weights)
    rate = product_rate(precision, device, threads=torch.get_num_threads())
    seconds, meter = sorted(runs, key=lambda run: run[0])[rounds // 2]
    forward = median(tokens / seconds for seconds, tokens in alone)
    figures = {
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "none",
        "torch": torch.__version__,
        "precision": precision,
        "documents": documents,
        "documents_per_second": documents / seconds,
        "tokens_per_second": meter.tokens / seconds,
        "all_seconds": [run[0] for run in runs],
        "busy_share": {step: busy / seconds for step, busy in meter.busy.items()},
        "forward_tokens_per_second": forward,
        "product_operations_per_second": rate,
        "forward_share_of_product": forward * operations / rate,
        "shapes": len(getattr(scorer._backend, "_programs", ())),
    }
    click.echo(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
