"""What a checkpoint is, which path scores it, and what its tokenizer makes of the corpus's texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from corpuscore.errors import ModelError
from corpuscore.job import Job
from corpuscore.records import COLUMN_NEXT_STEP, Finding, ScorerInfo, column_problems
from corpuscore.scoring.checkpoint import Checkpoint, find_checkpoint
from corpuscore.scoring.remote.address import is_service
from corpuscore.stages.planning import describe

_TEXTS = 4096  # that are tokenized
_LETTERS = 20_000  # of each
_UNKNOWN = ("[UNK]", "<unk>", "<|unk|>", "UNK")
_MUCH_UNKNOWN = 0.01
_MUCH_CUT = 0.1
#: What a backend does with texts of different lengths, in words.
_PATHS = {
    "bert": "unpadded, by the bert backend",
    "srupp": "unpadded, by the srupp backend",
    "service": "by the service at that address",
    "transformers": "by transformers' own network, which is slower than the unpadded path of the families it knows",
}


def look_at_model(job: Job, texts: Sequence[str]) -> Iterator[Finding | tuple[str, Any]]:
    """Facts and findings about the job's model, and about the texts as it sees them.

    Raises:
        ModelError, JobError: What would stop the plan.
    """
    info = describe(job)
    yield "model", f"{info.model}, {info.parameters:,} parameters" if info.parameters else info.model
    yield "labels", f"{len(info.labels)} ({info.activation}): {', '.join(info.labels[:30])}"
    yield "path", _path(info)
    if problems := column_problems(job.keep_columns, info.labels):
        yield Finding("columns", "error", f"{'; '.join(problems)}. Next: {COLUMN_NEXT_STEP}.")
    if all(label.startswith("LABEL_") for label in info.labels):
        message = (
            "The labels have no names; they become columns as they are. Next: name them in the checkpoint's config."
        )
        yield Finding("labels", "info", message, {"labels": list(info.labels)})
    if is_service(job.model):  # whose tokenizer is where it is
        return
    try:
        checkpoint = find_checkpoint(job.model, allow_pickle=job.allow_pickle)
    except ModelError:  # it is where the workers are, as describe has found
        return
    yield "family", f"{checkpoint.config.get('model_type')} ({checkpoint.architecture})"
    if texts:
        yield from _tokens(checkpoint, job.max_tokens, [text[:_LETTERS] for text in texts[:_TEXTS]])


def _path(info: ScorerInfo) -> str:
    what = _PATHS.get(info.backend, f"by the {info.backend} backend")
    return f"{what}, in {info.precision}" + (f" ({info.arithmetic})" if info.arithmetic else "")


def _tokens(checkpoint: Checkpoint, most: int, texts: list[str]) -> Iterator[Finding | tuple[str, Any]]:
    tokenizer = checkpoint.tokenizer()
    tokens = tokenizer.encode(texts, None)
    lengths = np.sort(np.diff(tokens.offsets))
    median, high = int(lengths[len(lengths) // 2]), int(lengths[len(lengths) * 95 // 100])
    yield "tokens", f"median {median:,}, 95 % up to {high:,}, longest {int(lengths[-1]):,}"
    cut = float((lengths > most).mean())
    yield f"texts above {most} tokens", f"{cut:.1%}"
    if cut > _MUCH_CUT:
        message = (
            f"{cut:.1%} of the texts have more than {most} tokens, and are cut there. Next: raise --max-tokens as far "
            "as the model goes, or score windows: --long-documents mean."
        )
        yield Finding("long_texts", "warning", message, {"fraction": cut})
    unknown = [found for name in _UNKNOWN if (found := tokenizer.rust.token_to_id(name)) is not None]
    share = float(np.isin(tokens.ids, unknown).mean()) if unknown else 0.0
    yield "unknown tokens", f"{share:.2%}"
    if share > _MUCH_UNKNOWN:
        message = (
            f"{share:.1%} of the tokens are unknown to the model: it was trained on other languages or symbols. "
            "Next: choose a model for this corpus."
        )
        yield Finding("unknown_tokens", "warning", message, {"fraction": share})
