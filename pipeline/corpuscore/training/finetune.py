"""Fine-tuning: a BERT checkpoint, or any other that transformers has built in, on gold labels.

Shape suffixes: D documents, L labels, B documents of a batch, S their longest in tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from corpuscore.errors import ModelError, TrainingError
from corpuscore.files import write_whole
from corpuscore.records import Activation
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.devices import resolve_device
from corpuscore.scoring.tokenizer import TextTokenizer
from corpuscore.training.batches import Rows, pack
from corpuscore.training.folder import claim
from corpuscore.training.labelled import Labelled, read_label_names, read_labelled, write_labelled
from corpuscore.training.limits import check_limits
from corpuscore.training.loop import Progress, Settings, train
from corpuscore.training.metrics import brier, tuned_agreement
from corpuscore.training.stages import quiet

#: What suits a pretrained transformer; a student that starts at random learns forty times as fast.
DEFAULTS = Settings(
    epochs=4, batch_tokens=4096, learning_rate=5e-5, weight_decay=0.01, averaging=0.0, clip=1.0, save_every=500
)


class FineTuning:
    """Cross-entropy of a sequence classifier against gold labels, in padded batches."""

    def __init__(
        self,
        module: nn.Module,
        learn: _Tokenized,
        held: _Tokenized,
        activation: Activation,
        device: str,
        batch_tokens: int,
    ) -> None:
        self.module = module.to(device)
        self.learn, self.held, self.activation = learn, held, activation
        self.device, self.batch_tokens = device, batch_tokens
        self.lengths_D = learn.lengths_D
        self.padded = True

    def loss(self, documents: Rows) -> Tensor:
        """Mean over documents of the sum over labels."""
        logits_BL = self._logits(self.module, self.learn, documents)
        gold_BL = torch.from_numpy(self.learn.gold_DL[documents].astype(np.float32)).to(self.device)
        if self.activation == "sigmoid":
            return functional.binary_cross_entropy_with_logits(logits_BL, gold_BL, reduction="sum") / len(logits_BL)
        return functional.cross_entropy(logits_BL, gold_BL / gold_BL.sum(dim=1, keepdim=True).clamp(min=1))

    @torch.inference_mode()
    def measure(self, module: nn.Module) -> Mapping[str, float]:
        """Agreement with the gold labels of held-out documents."""
        module.eval()
        scores_DL = np.zeros(self.held.gold_DL.shape, np.float32)
        order = np.argsort(self.held.lengths_D, kind="stable")
        for documents in pack(self.held.lengths_D, order, self.batch_tokens, padded=True):
            logits_BL = self._logits(module, self.held, documents)
            scores_BL = logits_BL.sigmoid() if self.activation == "sigmoid" else logits_BL.softmax(dim=1)
            scores_DL[documents] = scores_BL.cpu().numpy()
        gold_DL = self.held.gold_DL
        found = tuned_agreement(scores_DL, gold_DL, self.activation)
        metrics = {"brier": brier(scores_DL, gold_DL), "macro_f1": found.macro_f1, "micro_f1": found.micro_f1}
        return {**metrics, "score": found.macro_f1}

    def _logits(self, module: nn.Module, texts: _Tokenized, documents: Rows) -> Tensor:
        ids_BS, mask_BS = (tensor.to(self.device) for tensor in texts.padded(documents))
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
            logits: Tensor = module(input_ids=ids_BS, attention_mask=mask_BS).logits
        return logits.float()


class _Tokenized:
    """Labelled documents as token ids."""

    def __init__(self, tokenizer: TextTokenizer, documents: Labelled, max_tokens: int, padding: int) -> None:
        tokens = tokenizer.encode(documents.texts, max_tokens)
        self.ids_T, self.offsets = tokens.ids.astype(np.int64), tokens.offsets
        self.lengths_D: Rows = np.diff(self.offsets)
        self.gold_DL: npt.NDArray[np.bool_] = documents.gold_DL
        self.padding = padding

    def padded(self, documents: Rows) -> tuple[Tensor, Tensor]:
        """Ids and mask, int64 [B, S]."""
        longest = int(self.lengths_D[documents].max())
        ids_BS = np.full((len(documents), longest), self.padding, np.int64)
        for row, document in enumerate(documents):
            ids_BS[row, : self.lengths_D[document]] = self.ids_T[self.offsets[document] : self.offsets[document + 1]]
        mask_BS = np.arange(longest) < self.lengths_D[documents][:, None]
        return torch.from_numpy(ids_BS), torch.from_numpy(mask_BS.astype(np.int64))


def finetune(
    folder: str,
    model: str,
    data: str,
    label_names: str | None = None,
    settings: Mapping[str, Any] | None = None,
    held_out: float = 0.1,
    max_tokens: int = 256,
    device: str = "auto",
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Fine-tune a checkpoint on a labelled file, from the newest checkpoint of the run where there is one.

    Args:
        folder: The run's.
        model: A folder or hub name that transformers can load; its head is replaced where its labels differ.
        data: Labelled file, see `read_labelled`.
        label_names: File with the labels, one a line in the order of their numbers; the checkpoint's where None.
        settings: Of the training, see Settings; what is left out is as in DEFAULTS.
        held_out: Share of the documents, by a hash of their texts, on which the best epoch is chosen.
        max_tokens: Longer texts are cut.
        device: auto, cpu or cuda.
        progress: Called after each step and epoch.

    Returns:
        The model's folder, the metrics of the epoch that was kept, and those of all.

    Raises:
        ModelError: The checkpoint cannot be loaded.
        TrainingError: Bad labels, other options than before, or a loss that is not a number.
    """
    root, pace = Path(folder), Settings(**{**asdict(DEFAULTS), **(settings or {})})
    check_limits({"held_out": held_out, "max_tokens": max_tokens, **asdict(pace)})
    labels = read_label_names(label_names) if label_names else find_checkpoint(model).labels
    options = {"model": model, "data": data, "labels": list(labels), "held_out": held_out, "max_tokens": max_tokens}
    claim(root, "finetune", {**options, "settings": asdict(pace)})
    learn, held = read_labelled(data, labels).split(held_out)
    if not len(learn) or not len(held):
        raise TrainingError(
            f"{data}: {len(learn)} documents to learn from, {len(held)} held out",
            rule="both sides need documents",
            next_step="give more documents, or another --held-out",
        )
    write_labelled(held, root / "held-out.tsv")
    module, tokenizer = load_pretrained(model, labels, pace.seed)
    rust = TextTokenizer.from_rust(tokenizer.backend_tokenizer, tokenizer.truncation_side)
    padding = tokenizer.pad_token_id or 0
    where = resolve_device(device)
    task = FineTuning(
        module,
        _Tokenized(rust, learn, max_tokens, padding),
        _Tokenized(rust, held, max_tokens, padding),
        "sigmoid",
        where,
        pace.batch_tokens,
    )
    outcome = train(task, pace, root / "checkpoints", progress)
    write_whole(root / "history.json", (json.dumps(outcome.history, indent=1) + "\n").encode())
    module.to("cpu").save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    return {"model": str(root / "model"), "best": dict(outcome.best), "history": outcome.history}


def load_pretrained(model: str, labels: Sequence[str], seed: int) -> tuple[Any, Any]:
    """A classifier with these labels, and its tokenizer; a new head starts from the seed.

    Raises:
        ModelError: transformers cannot load it.
    """
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    try:
        module = transformers.AutoModelForSequenceClassification.from_pretrained(
            model,
            id2label=names,
            label2id={label: number for number, label in names.items()},
            problem_type="multi_label_classification",
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"Model {model} cannot be fine-tuned ({type(error).__name__}: {error})",
            rule="a model to fine-tune is a folder or hub name with config.json, safetensors and a tokenizer",
            next_step="check the name",
        ) from error
    return module, tokenizer
