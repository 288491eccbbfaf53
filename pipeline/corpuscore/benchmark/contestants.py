"""Who takes part: each a factory that loads a model its own way and returns a function from texts to probabilities.

All tokenize within the timed run, cut at the same number of tokens, and use the same threads. Those that pad sort by
length first, and get the best of a few batch sizes.

Shape suffixes: S texts, N tokens of the longest text of a batch, L labels.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Rows = npt.NDArray[np.float32]
#: texts, batch size -> probabilities float32 [S, L]
Score = Callable[[Sequence[str], int], Rows]
#: ids and mask int64 [S, N] -> logits [S, L]
Forward = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contestants are given.

    Attributes:
        model: As the user named it.
        folder: Where its files lie.
        labels: Names in column order.
        activation: sigmoid or softmax.
        max_tokens: Longer texts are cut.
        threads: CPU threads.
        device: cpu or cuda.
        precision: Of this engine; the alternatives in torch use it too where it is a type of torch's.
        backend: That of this engine, which says whether transformers has the model, too.
    """

    model: str
    folder: str
    labels: tuple[str, ...]
    activation: str
    max_tokens: int
    threads: int
    device: str
    precision: str
    backend: str


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to score.

    Attributes:
        load: Factory; raises ImportError where its library is not installed.
        batch_sizes: What to try on a sample; the fastest runs.
        devices: Where it can run.
    """

    load: Callable[[Setup], Score]
    batch_sizes: tuple[int, ...]
    devices: tuple[str, ...] = ("cpu",)


def corpuscore(setup: Setup) -> Score:
    """This engine."""
    from corpuscore.scoring import load_scorer

    scorer = load_scorer(
        setup.model,
        device=setup.device,
        precision=setup.precision,
        max_tokens=setup.max_tokens,
        threads=setup.threads,
    )
    return lambda texts, _: scorer.score(texts)


def without_kernels(setup: Setup) -> Score:
    """This engine in torch: what runs where no kernel can be had. Contestants are processes, so that it stays there."""
    os.environ["CORPUSCORE_CPU"] = "none"
    return corpuscore(setup)


def transformers_pipeline(setup: Setup) -> Score:
    """The text-classification pipeline of transformers."""
    import transformers

    run = transformers.pipeline(
        "text-classification",
        model=_torch_model(setup),
        tokenizer=transformers.AutoTokenizer.from_pretrained(
            setup.folder, local_files_only=True, trust_remote_code=False
        ),
        device=setup.device,
        top_k=None,
    )
    columns = {label: index for index, label in enumerate(setup.labels)}

    def score(texts: Sequence[str], batch_size: int) -> Rows:
        rows = np.empty((len(texts), len(columns)), np.float32)
        found: Any = run(list(texts), batch_size=batch_size, truncation=True, max_length=setup.max_tokens)
        for index, entries in enumerate(found):
            for entry in entries:
                rows[index, columns[entry["label"]]] = entry["score"]
        return rows

    return score


def sorted_padded(setup: Setup) -> Score:
    """Transformers' own forward pass in torch on padded batches of like length."""
    import torch

    model = _torch_model(setup)

    @torch.inference_mode()
    def forward(ids_SN: npt.NDArray[np.int64], mask_SN: npt.NDArray[np.int64]) -> Rows:
        ids, mask = (torch.from_numpy(array).to(setup.device) for array in (ids_SN, mask_SN))
        return model(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()  # type: ignore[no-any-return]

    return _padded(setup, forward)


def onnxruntime(setup: Setup) -> Score:
    """ONNX Runtime in fp32."""
    return _padded(setup, _onnx_forward(setup, int8=False))


def onnxruntime_int8(setup: Setup) -> Score:
    """ONNX Runtime with its own dynamic int8 quantisation."""
    return _padded(setup, _onnx_forward(setup, int8=True))


def openvino(setup: Setup) -> Score:
    """OpenVINO in fp32."""
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_NUM_THREADS": setup.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    with tempfile.TemporaryDirectory() as folder:
        compiled = core.compile_model(_export_onnx(setup, Path(folder)), "CPU", settings)
    request = compiled.create_infer_request()

    def forward(ids_SN: npt.NDArray[np.int64], mask_SN: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        return np.array(request.infer({"input_ids": ids_SN, "attention_mask": mask_SN})[0])

    return _padded(setup, forward)


CONTESTANTS = {
    "corpuscore": Contestant(corpuscore, (0,), ("cpu", "cuda")),
    "without-kernels": Contestant(without_kernels, (0,)),
    "transformers-pipeline": Contestant(transformers_pipeline, (1, 8, 32), ("cpu", "cuda")),
    "sorted-padded": Contestant(sorted_padded, (8, 16, 32, 64), ("cpu", "cuda")),
    "onnxruntime": Contestant(onnxruntime, (8, 16, 32, 64)),
    "onnxruntime-int8": Contestant(onnxruntime_int8, (8, 16, 32, 64)),
    "openvino": Contestant(openvino, (8, 16, 32, 64)),
}


def _torch_model(setup: Setup) -> Any:
    import torch
    import transformers

    torch.set_num_threads(setup.threads)
    kinds = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp16": torch.float16}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        setup.folder, dtype=kinds.get(setup.precision, torch.float32), local_files_only=True, trust_remote_code=False
    )
    return model.eval().to(setup.device)


def _padded(setup: Setup, forward: Forward) -> Score:
    """Tokenize, sort by length, pad each batch to its longest text, and put the rows back in order."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(setup.folder, local_files_only=True, trust_remote_code=False)

    def score(texts: Sequence[str], batch_size: int) -> Rows:
        encoded = tokenizer(list(texts), truncation=True, max_length=setup.max_tokens)["input_ids"]
        order = sorted(range(len(texts)), key=lambda index: -len(encoded[index]))
        logits = np.empty((len(texts), len(setup.labels)), np.float32)
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            logits[members] = forward(*_rectangle([encoded[index] for index in members], tokenizer.pad_token_id))
        return _activate(logits, setup.activation)

    return score


def _rectangle(sequences: list[list[int]], pad: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    lengths = np.array([len(sequence) for sequence in sequences])
    mask_SN = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids_SN = np.full(mask_SN.shape, pad, np.int64)
    ids_SN[mask_SN] = np.concatenate([np.array(sequence, np.int64) for sequence in sequences])
    return ids_SN, mask_SN.astype(np.int64)


def _activate(logits_SL: Rows, activation: str) -> Rows:
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits_SL)), np.float32)
    powers = np.exp(logits_SL - logits_SL.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _onnx_forward(setup: Setup, *, int8: bool) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = _export_onnx(setup, Path(folder))
        session = ort.InferenceSession(_quantised(path) if int8 else path, options, ["CPUExecutionProvider"])

    def forward(ids_SN: npt.NDArray[np.int64], mask_SN: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        (logits_SL,) = session.run(["logits"], {"input_ids": ids_SN, "attention_mask": mask_SN})
        return logits_SL  # type: ignore[no-any-return]

    return forward


def _quantised(path: str) -> str:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the quantiser transposes weights, and then stumbles over their old shapes
    onnx.save(model, path)
    quantize_dynamic(path, f"{path}.int8", weight_type=QuantType.QInt8, per_channel=True)
    return f"{path}.int8"


def _export_onnx(setup: Setup, folder: Path) -> str:
    """The checkpoint as an ONNX file with free batch and length."""
    import onnxscript  # noqa: F401  (the exporter needs it; its absence is reported as such)
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]

    logging.disable(logging.WARNING)  # exporter and quantiser chatter; this process does nothing else
    path = os.fspath(folder / "model.onnx")
    ids_SN = torch.ones(2, 16, dtype=torch.int64)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=setup.max_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names of axes that have no effect
        torch.onnx.export(
            Logits(_torch_model(setup)).eval(),
            (ids_SN, torch.ones_like(ids_SN)),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={name: {0: batch, 1: length} for name in ("input_ids", "attention_mask")},
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    return path
