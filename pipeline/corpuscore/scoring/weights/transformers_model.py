"""Weights of a checkpoint as a transformers model: read safely, in the wanted precision, on the wanted device."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from corpuscore.errors import ModelError
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.configuration import labels_by_id
from corpuscore.scoring.scorer import Tokens

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
    "int8": torch.float32,
}

#: Weights that a network may have more than twice those of its files: each missing one is named then.
_SMALL_NETWORK = 2**24
#: Width of a model whose config calls it something else.
_USUAL_WIDTH = 1_024


def load_model(checkpoint: Checkpoint, precision: str, device: str, attention: str | None = None) -> Any:
    """The classifier in evaluation mode.

    Args:
        checkpoint: Already checked; nothing of it is executed.
        precision: One of DTYPES; int8 and fp8 are made from what this returns.
        device: cpu or cuda.
        attention: Name of an attention implementation that transformers knows; None: the best that the class supports,
            as transformers' own pipeline takes it.

    Raises:
        ModelError: Weights that cannot be read, that are missing, or that have other shapes than the config.
    """
    import transformers  # takes seconds, and an SRU++ network needs only what else is here

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _check_size(checkpoint, attention)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                config=read_config(checkpoint),
                dtype=DTYPES[precision],
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=not checkpoint.pickled,
                output_loading_info=True,
            )
    except Exception as error:  # each architecture checks its config in its own way
        raise _unusable(checkpoint, error) from error
    _check_complete(checkpoint, model, sorted(report["missing_keys"]))
    return model.to(device).eval()


def read_config(checkpoint: Checkpoint) -> Any:
    """The config as transformers reads it, which cannot read one that lists its labels."""
    import transformers

    if not isinstance(checkpoint.config.get("id2label"), list):
        return transformers.AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    named = {int(key): label for key, label in labels_by_id(checkpoint.config).items()}
    kind = transformers.CONFIG_MAPPING[checkpoint.config["model_type"]]
    return kind.from_dict({**checkpoint.config, "id2label": named})


def _unusable(checkpoint: Checkpoint, error: Exception) -> ModelError:
    return ModelError(
        f"Model {checkpoint.name} cannot be loaded ({type(error).__name__}: {str(error)[:500]})",
        rule="weights, config.json and architecture must belong together",
        next_step="load it once with transformers, and save it again",
    )


def _check_size(checkpoint: Checkpoint, attention: str | None) -> None:
    """Refuse a config of a network far larger than its weights, before memory is taken for what they do not fill."""
    import transformers

    try:
        config = read_config(checkpoint)
        with torch.device("meta"):
            network = transformers.AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
                config, attn_implementation=attention, trust_remote_code=False
            )
    except Exception as error:
        raise _unusable(checkpoint, error) from error
    wanted = sum(parameter.numel() for parameter in network.parameters())
    if not checkpoint.pickled and wanted > 2 * checkpoint.parameters + _SMALL_NETWORK:
        raise ModelError(
            f"Model {checkpoint.name}: config.json describes a network of {wanted:,} weights, and the files hold "
            f"{checkpoint.parameters:,}",
            rule="weights and config.json belong together",
            next_step="copy both again from where the model was made",
        )


def _check_complete(checkpoint: Checkpoint, model: Any, missing: list[str]) -> None:
    """Refuse a checkpoint whose head would be random, or has other labels than its config."""
    if missing:
        raise ModelError(
            f"Model {checkpoint.name} has no weights for {', '.join(missing[:4])}",
            rule="a scorer's head must be trained, not random",
            next_step="fine-tune it first: corpuscore train",
        )
    if model.config.num_labels != len(checkpoint.labels):
        raise ModelError(
            f"Model {checkpoint.name} has {model.config.num_labels} outputs and {len(checkpoint.labels)} labels",
            next_step="correct id2label in config.json",
        )


def check_ids(tokens: Tokens, model: Any) -> None:
    """Refuse what a model cannot look up; on a GPU, nothing that it does afterwards would be right.

    Args:
        tokens: A pack.
        model: The classifier.

    Raises:
        ValueError: A sequence has no token.
        IndexError: A token has no row in the embedding.
    """
    if tokens.lengths.min(initial=1) < 1:
        raise ValueError("the text has no token")
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # it has no table of tokens: it hashes characters
        rows = None
    if rows is not None and (highest := int(tokens.ids.max(initial=0))) >= rows:
        raise IndexError(f"token {highest} has no row in the embedding, which has {rows}")


def bytes_a_token(config: Any, bytes_a_number: int) -> int:
    """What lives at once for a token at the widest point of a layer.

    These are the hidden states, query, key, value, attention's output and a copy for the residual (8 widths with
    temporaries), and the two sides of the feed-forward part.

    Args:
        config: Of transformers.
        bytes_a_number: 4 in fp32, 2 in half precision.
    """
    hidden = int(getattr(config, "hidden_size", _USUAL_WIDTH))
    return (8 * hidden + 2 * int(getattr(config, "intermediate_size", None) or 4 * hidden)) * bytes_a_number


def probabilities(logits_SL: torch.Tensor, activation: str) -> torch.Tensor:
    """float32 [S, L]: sigmoid, or softmax over the labels, in float32 whatever the logits were."""
    logits_SL = logits_SL.float()
    return logits_SL.sigmoid() if activation == "sigmoid" else logits_SL.softmax(-1)


def use_threads(threads: int | None) -> None:
    """Set the threads of the CPU's matrix products for the process."""
    if threads is not None:
        torch.set_num_threads(threads)
