"""`corpuscore train distil | finetune` and `corpuscore evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from corpuscore.cli.display import Bar, progress, say
from corpuscore.progress import Lines
from corpuscore.training import evaluation, stages
from corpuscore.training import finetune as fine_tuning
from corpuscore.training.folder import clear
from corpuscore.training.loop import Event, Settings
from corpuscore.training.student import Shape

Command = TypeVar("Command", bound=Callable[..., Any])

_DEVICE = click.Choice(["auto", "cpu", "cuda"])
_HELP = {
    "epochs": "Times that every text is seen.",
    "batch_tokens": "Tokens of a step.",
    "learning_rate": "At its peak; cosine after a warm-up.",
    "embedding_rate": "Learning rate of embeddings, as a share of the other.",
    "weight_decay": "Of matrices.",
    "warmup": "Steps until the peak.",
    "averaging": "Decay of the running mean of the weights, which is what is kept; 0: the last weights.",
    "clip": "Largest norm of a gradient.",
    "save_every": "Steps between two checkpoints.",
    "seed": "Of everything that is drawn; the same seed gives the same model.",
    "vocabulary": "Entries at the most, emoji not counted.",
    "embedding": "Features of an embedding.",
    "hidden": "Channels of a direction.",
    "projection": "Features of the projected attention.",
    "layers": "SRU++ layers.",
    "attention_layers": "The last so many have attention.",
    "dropout": "Inside the encoder.",
    "head_dropout": "Of embeddings and of the pooled vector.",
    "word_dropout": "Share of tokens that a step hides.",
}
_FLAGS = {"learning_rate": "--lr"}


def _options_of(defaults: Any) -> Callable[[Command], Command]:
    """One option for each field of a dataclass instance."""

    def decorate(command: Command) -> Command:
        for field in reversed(fields(defaults)):
            flag = _FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
            value = getattr(defaults, field.name)
            option = click.option(
                flag, field.name, type=type(value), default=value, show_default=True, help=_HELP[field.name]
            )
            command = option(command)
        return command

    return decorate


def _run_options(command: Command) -> Command:
    """Options of every training run."""
    for option in (
        click.option("--into", required=True, metavar="DIR", help="Folder of the run; the model comes to DIR/model."),
        click.option("--device", type=_DEVICE, default="auto", show_default=True, help="Where it trains."),
        click.option(
            "--resume/--fresh", default=True, show_default=True, help="Go on with the run in DIR, or start over."
        ),
        click.option("--max-tokens", default=256, show_default=True, help="Longer texts are cut."),
        click.option("--label-names", metavar="FILE", help="Names of the numbers in label files, one a line."),
        click.option(
            "--held-out", default=0.1, show_default=True, help="Share of labelled texts on which the epoch is chosen."
        ),
    ):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train a model: a small student from any scorer, or a BERT checkpoint from gold labels."""


@train.command()
@click.option("--teacher", required=True, metavar="MODEL", help="A folder or hub name: any scorer.")
@click.option(
    "--texts", multiple=True, metavar="URI", help="Unlabelled texts; URI#NAME where the column is not `text`."
)
@click.option("--labels", metavar="FILE", help="Labelled texts: tab-separated, or Parquet with text and labels.")
@click.option("--max-texts", default=100_000, show_default=True, help="Pieces of unlabelled texts at the most.")
@click.option("--copies", default=1, show_default=True, help="Varied copies of each labelled text.")
@click.option("--gold-share", default=0.5, show_default=True, help="Weight of gold labels where a text has some.")
@click.option(
    "--storage", type=click.Choice(["int8", "fp16", "fp32"]), default="int8", show_default=True, help="Of the weights."
)
@_run_options
@_options_of(Shape())
@_options_of(Settings())
def distil(into: str, device: str, resume: bool, teacher: str, **options: Any) -> None:
    """Train a small SRU++ model to score as a teacher does."""
    if not resume:
        clear(Path(into))
    shape = {field.name: options[field.name] for field in fields(Shape)}
    settings = {field.name: options[field.name] for field in fields(Settings)}
    chosen = ("texts", "labels", "label_names", "max_texts", "copies", "held_out", "seed")
    counts = stages.sample_corpus(into, teacher, **{name: options[name] for name in chosen})
    say("texts: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items()))
    with progress("teacher", "texts") as bar:
        stages.teacher_scores(
            into, teacher, device, options["max_tokens"], progress=lambda done, total: bar(done, total, "scored")
        )
    with progress("train", "steps") as bar:
        result = stages.train_student(
            into,
            teacher,
            shape,
            settings,
            options["gold_share"],
            options["storage"],
            device,
            options["max_tokens"],
            progress=_steps(bar),
        )
    _finished(result)


@train.command()
@click.option("--model", required=True, metavar="MODEL", help="A folder or hub name that transformers can load.")
@click.option(
    "--data", required=True, metavar="FILE", help="Labelled texts: tab-separated, or Parquet with text and labels."
)
@_run_options
@_options_of(fine_tuning.DEFAULTS)
def finetune(into: str, device: str, resume: bool, model: str, data: str, **options: Any) -> None:
    """Train a BERT checkpoint on gold labels."""
    if not resume:
        clear(Path(into))
    settings = {field.name: options[field.name] for field in fields(Settings)}
    with progress("train", "steps") as bar:
        result = fine_tuning.finetune(
            into,
            model,
            data,
            options["label_names"],
            settings,
            options["held_out"],
            options["max_tokens"],
            device,
            progress=_steps(bar),
        )
    _finished(result)


@click.command()
@click.option(
    "--model", default="bundled", show_default=True, metavar="MODEL", help="A folder, a hub name, or bundled."
)
@click.option(
    "--data", required=True, metavar="FILE", help="Labelled texts: tab-separated, or Parquet with text and labels."
)
@click.option("--tune", metavar="FILE", help="Labelled texts on which one threshold a label is tuned.")
@click.option("--label-names", metavar="FILE", help="Names of the numbers in both files, one a line; else the model's.")
@click.option("--device", type=_DEVICE, default="auto", show_default=True, help="Where it runs.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16, fp16 or int8.")
@click.option("--max-tokens", default=512, show_default=True, help="Longer texts are cut.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def evaluate(as_json: bool, **options: Any) -> None:
    """Compare a model's scores with gold labels: F1 by label, calibration, documents a second."""
    found = evaluation.evaluate(**options)
    if as_json:
        click.echo(orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2))
    else:
        Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(_table(found))
        click.echo(_summary(found))


def _table(found: evaluation.Evaluation) -> Table:
    table = Table("label", *("threshold", "precision", "recall", "F1"), "documents")
    for label, row in found.to_json()["by_label"].items():
        figures = (f"{row[name]:.2f}" for name in ("threshold", "precision", "recall", "f1"))
        table.add_row(label, *figures, f"{row['support']:,}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _summary(found: evaluation.Evaluation) -> str:
    tuned = f"thresholds tuned on {found.tuned_on}" if found.tuned_on else "thresholds 0.5"
    return (
        f"macro-F1 {found.found.macro_f1:.4f}, micro-F1 {found.found.micro_f1:.4f} ({tuned}); "
        f"Brier {found.brier:.4f}, calibration error {found.calibration_error:.4f}\n"
        f"{found.documents:,} documents in {found.seconds:.2f} s: {found.documents_per_second:,.0f} documents/s "
        f"({found.scorer.backend}, {found.scorer.precision}, {found.scorer.parameters:,} parameters)"
    )


def _steps(bar: Bar | Lines) -> Callable[[Event], None]:
    """Steps on the bar; the metrics of an epoch stay as a line of their own."""

    def show(event: Event) -> None:
        if not event.metrics:
            bar(event.step, event.steps, f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.4f}")
        else:
            bar.line(f"epoch {event.epoch}/{event.epochs}: {_figures(event.metrics)}")

    return show


def _figures(metrics: Any) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name not in ("epoch", "score"))


def _finished(result: dict[str, Any]) -> None:
    say(f"kept epoch {result['best']['epoch']:.0f}: {_figures(result['best'])}")
    click.echo(result["model"])
