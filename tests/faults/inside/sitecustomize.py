"""Loaded by every Python process of a run whose PYTHONPATH leads here: says where the process is, and strikes there.

A place that the data passes is a point: `read`, `score`, `part`, `receipt`, `load`, ... The suite counts passages over
all processes, and its rules say what happens at the n-th: a signal to the process itself, or a hold until the
suite says go. The product knows nothing of it: its functions are wrapped as their modules are imported.

The environment variable FAULTS_CONTROL names the folder in which rules, passages and holds lie.
"""

from __future__ import annotations

import faulthandler
import fcntl
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_HOLD_SECONDS = 120.0


def role() -> str:
    """What this process is: a worker, a child that scores alone, or anything else."""
    if "--multiprocessing-fork" in sys.orig_argv:
        return "worker"
    return "alone" if "corpuscore.scoring.alone" in sys.orig_argv else "driver"


class Control:
    """The suite's folder, seen from inside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._role = role()

    def passing(self, point: str) -> None:
        """Tell that this process passes a point, and do what the rules say."""
        try:
            said = json.loads((self._folder / "rules.json").read_text())
        except FileNotFoundError:
            return  # between two runs
        for rule in said["rules"]:
            if rule["point"] == point and rule["role"] in ("", self._role) and self._is_turn(rule):
                self._act(rule)
        with (self._folder / "passages").open("a") as passages:
            passages.write(f"{point} {self._role} {os.getpid()}\n")
        time.sleep(said["pace"].get(point, 0.0))

    def _is_turn(self, rule: dict[str, Any]) -> bool:
        """Whether this passage, of all processes, is one of those that the rule names."""
        with (self._folder / f"count-{rule['id']}").open("a+") as count:
            fcntl.flock(count, fcntl.LOCK_EX)
            count.write(".")
            count.flush()
            return 0 <= count.tell() - int(rule["nth"]) < int(rule["times"])

    def _act(self, rule: dict[str, Any]) -> None:
        after = float(rule["after"])
        if after:
            threading.Timer(after, self._do, (rule,)).start()
        else:
            self._do(rule)

    def _do(self, rule: dict[str, Any]) -> None:
        if rule["do"] == "hold":
            self._hold(rule["id"])
        else:
            (self._folder / f"struck-{rule['id']}-{os.getpid()}-{time.time_ns()}").touch()
            os.kill(os.getpid(), signal.Signals[rule["do"]])

    def _hold(self, rule_id: str) -> None:
        (self._folder / f"held-{rule_id}").write_text(str(os.getpid()))
        until = time.monotonic() + _HOLD_SECONDS
        while not (self._folder / f"go-{rule_id}").exists() and time.monotonic() < until:
            time.sleep(0.01)


def poison(text: str) -> None:
    """What a marked text does to the process that scores it."""
    kind = text.partition("POISON-")[2].partition(" ")[0]
    if kind == "HANG":
        time.sleep(3600)
    elif kind == "LOOP":
        while True:
            pass
    elif kind == "EXIT":
        os._exit(3)
    elif kind == "MEMORY":
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * 2**26)
            time.sleep(0.02)
    elif kind:
        os.kill(os.getpid(), signal.Signals[kind])


def _around(control: Control, owner: Any, name: str, before: str = "", after: str = "", key: str = "") -> None:
    """Wrap a function so that its start and its end are points; with a key, only where an argument begins with it."""
    original = getattr(owner, name)

    def wrapped(*values: Any, **named: Any) -> Any:
        here = not key or any(str(value).startswith(key) for value in values)
        if before and here:
            control.passing(before)
        result = original(*values, **named)
        if after and here:
            control.passing(after)
        return result

    setattr(owner, name, wrapped)


def _stages(control: Control, module: ModuleType) -> None:
    for name, done in (
        ("plan", "planned"),
        ("score", "scored"),
        ("validate", "validated"),
        ("load", "loaded"),
        ("report", "reported"),
    ):
        _around(control, module, name, name, done)


def _planning(control: Control, module: ModuleType) -> None:
    _around(control, module, "list_objects", "list", "listed")


def _engine(control: Control, module: ModuleType) -> None:
    original = module.Engine.stream

    def stream(self: Any, texts: Any, *values: Any, **named: Any) -> Iterator[Any]:
        for scores in original(self, map(_tasted, texts), *values, **named):
            control.passing("score")
            yield scores

    module.Engine.stream = stream


def _tasted(texts: list[str]) -> list[str]:
    for text in texts:
        if "POISON-" in text:
            poison(text)
    return texts


def _store(control: Control, module: ModuleType) -> None:
    _around(control, module.Store, "upload", "part", "parted", "parts/")
    _around(control, module.Store, "create", "receipt", "receipted", "receipts/")


def _reader(control: Control, module: ModuleType) -> None:
    _around(control, module.DocumentReader, "__enter__", "", "read")


def _scoring(control: Control, module: ModuleType) -> None:
    _around(control, module, "load_scorer", "model", "modelled")


def _duckdb(control: Control, module: ModuleType) -> None:
    _around(control, module.DuckDBWarehouse, "append", "append", "appended")


def _sql(control: Control, module: ModuleType) -> None:
    _around(control, module.SqlWarehouse, "record_run", "record", "recorded")


def _lake(control: Control, module: ModuleType) -> None:
    _around(control, module.LakeWarehouse, "record_run", "record", "recorded")


def _parquet(control: Control, module: ModuleType) -> None:
    _around(control, module.ParquetWarehouse, "_write_part", "append", "appended")
    _around(control, module.ParquetWarehouse, "_swap", "commit", "committed")


def _iceberg(control: Control, module: ModuleType) -> None:
    _around(control, module.IcebergWarehouse, "_write_part", "append", "appended")
    _around(control, module.IcebergWarehouse, "_commit", "commit", "committed")
    _around(control, module.IcebergWarehouse, "_follow", "follow", "followed")


_WRAPPED: dict[str, Callable[[Control, ModuleType], None]] = {
    "corpuscore.stages": _stages,
    "corpuscore.stages.planning": _planning,
    "corpuscore.scoring": _scoring,
    "corpuscore.scoring.engine": _engine,
    "corpuscore.storage.store": _store,
    "corpuscore.corpus.reader": _reader,
    "corpuscore.warehouse.sql": _sql,
    "corpuscore.warehouse.backends.duckdb": _duckdb,
    "corpuscore.warehouse.lake.warehouse": _lake,
    "corpuscore.warehouse.backends.parquet": _parquet,
    "corpuscore.warehouse.backends.iceberg": _iceberg,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and wraps it when it has been run."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and spec.loader:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _WRAPPED[name](self._control, module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _install(folder: Path) -> None:
    stacks = (folder / f"stacks-{os.getpid()}").open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    control = Control(folder)
    sys.meta_path.insert(0, _Finder(control))
    control.passing("start")


if "FAULTS_CONTROL" in os.environ:
    _install(Path(os.environ["FAULTS_CONTROL"]))
