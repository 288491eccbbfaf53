"""What a store says, as an error of a warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from corpuscore.errors import StorageError, StorageUnavailable, WarehouseError, WarehouseUnavailable


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise errors of the store of the tables as those of the warehouse that it is."""
    try:
        yield
    except StorageUnavailable as error:
        raise WarehouseUnavailable(error.value, rule=error.rule, next_step=error.next_step) from error
    except StorageError as error:
        raise WarehouseError(error.value, rule=error.rule, next_step=error.next_step) from error
