"""Write a classifier of BERT-base's size with random weights, to race against (their values do not change the time):

python -m tests.benchmarks.bert_base --tokenizer-of MODEL --into FOLDER
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import transformers

from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.tokenization.files import TOKENIZER_FILES


@click.command()
@click.option("--tokenizer-of", "model", required=True, help="A BERT checkpoint, whose tokenizer and labels it gets.")
@click.option("--into", type=click.Path(path_type=Path), required=True)
def main(model: str, into: Path) -> None:
    """12 layers, 768 wide."""
    checkpoint = find_checkpoint(model)
    config = transformers.BertConfig(
        vocab_size=checkpoint.config["vocab_size"],
        id2label=dict(enumerate(checkpoint.labels)),
        problem_type=checkpoint.config.get("problem_type"),
    )
    transformers.BertForSequenceClassification(config).save_pretrained(into)
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copy(checkpoint.folder / name, into)


if __name__ == "__main__":
    main()
