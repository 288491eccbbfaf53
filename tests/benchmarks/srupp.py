"""Tokens a second of SRU++ beside BERT-base and MiniLM, by length: `python -m tests.benchmarks.srupp [--device cuda]`.

Networks have the real shapes and random weights, so no model is needed; all documents of a run have one length, so that
no path pads. Each forward pass is timed alone, without the tokenizer, and the models take turns: what else the machine
does hits all of them alike. The best of the rounds counts. BERT-base is measured as transformers runs it and as
corpuscore does; beyond 512 tokens its positions are made up, since only the time matters here.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from corpuscore.scoring import _resolve
from corpuscore.scoring.scorer import Backend, Tokens
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.srupp.folder import save_classifier
from tests.scoring.checkpoints import wordpiece

LENGTHS = (32, 128, 512, 2048)
LABELS = tuple(f"label {i}" for i in range(28))

#: Names and what differs from the shape of the bundled model.
SRUPP: dict[str, dict[str, Any]] = {
    "SRU++ 2 layers, attention in the last": {"num_layers": 2, "attention_last_n_layers": 1},
    "SRU++ 4 layers, k=1": {"num_layers": 4},
    "SRU++ 4 layers, k=2": {"num_layers": 4, "attention_every_n_layers": 2},
    "SRU++ 4 layers, attention in the last": {"num_layers": 4, "attention_last_n_layers": 1},
}

#: Names, backend and shape: layers, width, width of the feed-forward network.
BERT: dict[str, tuple[str, tuple[int, int, int]]] = {
    "MiniLM (6 layers, 384)": ("bert", (6, 384, 1536)),
    "BERT-base": ("bert", (12, 768, 3072)),
    "BERT-base in transformers": ("transformers", (12, 768, 3072)),
}


def srupp_folder(folder: Path, shape: dict[str, Any]) -> Path:
    """A random SRU++ classifier."""
    config = SRUppConfig(vocab_size=20_000, labels=LABELS, embedding_size=384, hidden_size=192, proj_size=96, **shape)
    save_classifier(folder, SRUppClassifier(config), wordpiece())
    return folder


def bert_folder(folder: Path, shape: tuple[int, int, int]) -> Path:
    """A random BERT classifier."""
    layers, width, inner = shape
    config = transformers.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=12,
        max_position_embeddings=max(LENGTHS),
        id2label=dict(enumerate(LABELS)),
        problem_type="multi_label_classification",
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    wordpiece().save(str(folder / "tokenizer.json"))
    return folder


def backends(root: Path, device: str, precision: str, threads: int) -> Iterator[tuple[str, Backend]]:
    """Every model of the table, loaded."""
    made = [(name, "srupp", srupp_folder(root / name, shape)) for name, shape in SRUPP.items()]
    made += [(name, kind, bert_folder(root / name, shape)) for name, (kind, shape) in BERT.items()]
    for name, kind, folder in made:
        checkpoint, module, info, where = _resolve(str(folder), kind, device, precision, None, False)
        yield name, module.load(checkpoint, info, device=where, threads=threads)


def documents(length: int, tokens: int) -> Tokens:
    """Random documents of one length, as many tokens as asked for or one document."""
    count = max(1, tokens // length)
    ids = np.random.default_rng(0).integers(5, 100, count * length, dtype=np.int32)
    return Tokens(ids, np.arange(count + 1, dtype=np.int64) * length)


def tokens_a_second(backend: Backend, batch: Tokens) -> float:
    """Of one forward pass; the result is on the CPU when it ends."""
    started = time.perf_counter()
    backend.forward(batch)
    return len(batch.ids) / (time.perf_counter() - started)


def measure(models: dict[str, Backend], tokens: int, rounds: int) -> dict[str, dict[int, float]]:
    """The best tokens a second by model and length."""
    best: dict[str, dict[int, float]] = {name: dict.fromkeys(LENGTHS, 0.0) for name in models}
    for _ in range(rounds + 1):  # the first one warms up, and is as good as any if it should be the best
        for length in LENGTHS:
            for name, backend in models.items():
                share = tokens if name.startswith("SRU++") else tokens // 8
                speed = tokens_a_second(backend, documents(length, max(share, length)))
                best[name][length] = max(best[name][length], speed)
    return best


def table(models: dict[str, Backend], best: dict[str, dict[int, float]]) -> str:
    """Markdown: a row a model; in brackets, times BERT-base in transformers."""
    base = best["BERT-base in transformers"]
    head = ["", "parameters", *(f"{length} tokens" for length in LENGTHS)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, speeds in best.items():
        cells = [f"{speeds[length]:,.0f} ({speeds[length] / base[length]:.1f}x)" for length in LENGTHS]
        rows.append([name, f"{models[name].info.parameters / 1e6:.1f} M", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure and print the table."""
    options: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--precision", default="auto")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--tokens", type=int, default=16_384, help="of a forward pass of SRU++; an eighth for BERT")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    logging.getLogger("corpuscore").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as root:
        models = dict(backends(Path(root), given.device, given.precision, given.threads))
        best = measure(models, given.tokens, given.rounds)
    precision = next(iter(models.values())).info.precision
    where = (
        torch.cuda.get_device_name() if given.device == "cuda" else f"{platform.machine()} with {given.threads} threads"
    )
    sys.stdout.write(f"Tokens a second, {precision}, {where}, torch {torch.__version__}\n\n{table(models, best)}\n")


if __name__ == "__main__":
    main()
