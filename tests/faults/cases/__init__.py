"""The cases, a file for what is struck."""

from __future__ import annotations

import pkgutil
from importlib import import_module


def load_cases() -> None:
    """Fill the table with every file here."""
    for found in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{found.name}")
