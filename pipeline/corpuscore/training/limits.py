"""What numbers an option takes, checked where options become a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corpuscore.errors import JobError

#: Option -> its smallest and largest value.
LIMITS: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_tokens": (1, 10_000_000),
    "learning_rate": (1e-8, 10),
    "embedding_rate": (0, 100),
    "weight_decay": (0, 10),
    "warmup": (0, 10_000_000),
    "averaging": (0, 0.99999),
    "clip": (1e-6, 1e6),
    "save_every": (1, 10_000_000),
    "seed": (0, 2**31),
    "vocabulary": (1, 10_000_000),
    "embedding": (1, 65_536),
    "hidden": (1, 65_536),
    "projection": (1, 65_536),
    "layers": (1, 100),
    "attention_layers": (0, 100),
    "dropout": (0, 0.95),
    "head_dropout": (0, 0.95),
    "word_dropout": (0, 0.95),
    "gold_share": (0, 1),
    "held_out": (0.001, 0.9),
    "copies": (0, 100),
    "max_texts": (0, 1_000_000_000),
    "max_tokens": (4, 1_000_000),
}


def check_limits(options: Mapping[str, Any]) -> None:
    """Refuse an option that is out of its limits; options that have none are passed over.

    Raises:
        JobError: Naming the option, its value and its limits.
    """
    for name, value in options.items():
        least, most = LIMITS.get(name, (None, None))
        if least is not None and most is not None and not least <= value <= most:
            raise JobError(
                f"{name.replace('_', '-')}={value}",
                rule=f"it is between {least} and {most}",
                next_step="correct it (corpuscore train distil --help explains each option)",
            )
