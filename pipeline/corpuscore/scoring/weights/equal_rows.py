"""A classifier of transformers on texts of equal length, each scored as its own pipeline scores that text alone.

Nothing is padded, so that it does not matter whether an architecture masks, from which side it counts positions, or
which token its head reads. What else could make one text's scores depend on others is taken care of here.

Shape suffixes: S sequences, N tokens of each, L labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from corpuscore.errors import ModelError

#: What this module can give a model besides its token ids.
_GIVEN = frozenset(("input_ids", "attention_mask", "token_type_ids"))
#: An id that no text has, for heads that want to know of one before they take two texts at once.
_NO_TOKEN = -1


class EqualRows:
    """The forward pass, as the text-classification pipeline calls it.

    Args:
        model: A sequence classifier of transformers.
        folder: Where its tokenizer lies, which decides what the pipeline gives the model.
        special_tokens: How many of them stand before and after each text.
        name: Of the model, for messages.

    Raises:
        ModelError: The pipeline would give it something that is not made from its token ids.
    """

    def __init__(self, model: Any, folder: Path, special_tokens: tuple[int, int], name: str) -> None:
        self._model = model
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self._special_tokens = special_tokens
        self._types = self._types_of(_encoded(folder), name) if "token_type_ids" in self._accepted else None
        self._forget = _memories(model)
        text = model.config.get_text_config()
        if getattr(text, "pad_token_id", None) is None:
            text.pad_token_id = _NO_TOKEN  # then the last token counts, as with one text and no padding token

    @property
    def end_token(self) -> int | None:
        """An id that must occur equally often in texts which are scored together; None where there is none.

        Heads of encoder-decoders read the last end token, and refuse texts that have more of them than others.
        """
        config = self._model.config
        end = getattr(config, "eos_token_id", None)
        return end if isinstance(end, int) and getattr(config, "is_encoder_decoder", False) else None

    def logits(self, ids_SN: torch.Tensor) -> torch.Tensor:
        """Logits [S, L] for token ids int64 [S, N]."""
        for forget in self._forget:
            forget()
        given = {"input_ids": ids_SN}
        if "attention_mask" in self._accepted:
            given["attention_mask"] = torch.ones_like(ids_SN)
        if self._types is not None:
            given["token_type_ids"] = self._type_ids(ids_SN)
        more = {"use_cache": False} if "use_cache" in self._accepted else {}  # of a decoder: nothing is generated
        logits_SL: torch.Tensor = self._model(**given, **more).logits
        return logits_SL

    def _types_of(self, encoded: dict[str, list[int]], name: str) -> list[int] | None:
        """Type ids of special tokens and of one token of a text between them; None where the pipeline gives none."""
        unknown = sorted((encoded.keys() & self._accepted) - _GIVEN)
        if unknown:
            raise ModelError(
                f"Model {name} ({type(self._model).__name__}) is given {', '.join(unknown)} by its tokenizer",
                rule="a scorer gives a model its token ids, and what follows from them",
                next_step="use another checkpoint",
            )
        return encoded.get("token_type_ids")

    def _type_ids(self, ids_SN: torch.Tensor) -> torch.Tensor:
        assert self._types is not None  # noqa: S101  (for the type checker)
        before, after = self._special_tokens
        types = self._types[: before + 1], self._types[len(self._types) - after :]
        inside = ids_SN.shape[1] - before - after
        row_N = [*types[0][:before], *[types[0][before]] * inside, *(types[1] if after else [])]
        return torch.tensor(row_N, device=ids_SN.device).expand_as(ids_SN)


def _encoded(folder: Path) -> dict[str, list[int]]:
    """What a pipeline makes of one letter; nothing where transformers cannot load the tokenizer."""
    import transformers

    with suppress(Exception):  # what a tokenizer raises is its own choice, and a pipeline would end with it
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return dict(tokenizer("a"))
    return {}


def _memories(model: Any) -> list[Callable[[], None]]:
    """What makes a model forget the texts that it has seen, where it remembers them.

    Source: BigBirdModel.forward goes over to full attention for good at the first short text; dynamic_rope_update keeps
    the frequencies of the longest text that it has seen.
    """
    found: list[Callable[[], None]] = []
    for module in model.modules():
        if hasattr(module, "set_attention_type") and hasattr(module, "attention_type"):
            found.append(partial(module.set_attention_type, module.attention_type))
        elif hasattr(module, "max_seq_len_cached"):
            found.append(_restorer(module))
    return found


def _restorer(module: torch.nn.Module) -> Callable[[], None]:
    """What gives a module back the attributes and buffers that it has now."""
    attributes, buffers = dict(vars(module)), dict(module._buffers)

    def restore() -> None:
        vars(module).clear()
        vars(module).update(attributes)
        module._buffers.clear()
        module._buffers.update(buffers)

    return restore
