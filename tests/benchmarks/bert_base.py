"""Write a classifier of BERT-base's size with random weights, to race against (their values do not change the time):

python -m tests.benchmarks.bert_base --tokenizer-of MODEL --into FOLDER [--type deberta-v2]
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.tokenization.files import TOKENIZER_FILES

#: What the base-sized checkpoints of a type have in common, beside what its config class says.
TYPES: dict[str, dict[str, Any]] = {
    "bert": {},
    "albert": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "deberta-v2": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
    },
    "mpnet": {},
}  # fmt: skip


@click.command()
@click.option("--tokenizer-of", "model", required=True, help="A BERT checkpoint, whose tokenizer and labels it gets.")
@click.option("--into", type=click.Path(path_type=Path), required=True)
@click.option("--type", "kind", type=click.Choice(sorted(TYPES)), default="bert")
def main(model: str, into: Path, kind: str) -> None:
    """12 layers, 768 wide."""
    checkpoint = find_checkpoint(model)
    config_class: Any = CONFIG_MAPPING[kind]
    config = config_class(
        **TYPES[kind],
        vocab_size=checkpoint.config["vocab_size"],
        id2label=dict(enumerate(checkpoint.labels)),
        problem_type=checkpoint.config.get("problem_type"),
    )
    classifier = transformers.AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    classifier.save_pretrained(into)
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copy(checkpoint.folder / name, into)


if __name__ == "__main__":
    main()
