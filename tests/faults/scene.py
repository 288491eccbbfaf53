"""One run of one case: its corpus, its files, its commands, and the moments at which a fault strikes."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.faults import processes
from tests.faults.clock import Clock, make_clock
from tests.faults.cluster import Cluster
from tests.faults.command import Command, Ended, Fault
from tests.faults.control import Rule
from tests.faults.corpus import PARTITION_ROWS, Document, Objects, encode, objects
from tests.faults.places import FolderPlace, Place, S3Place
from tests.faults.profile import Profile
from tests.faults.servers import Servers
from tests.faults.stack import DagRun
from tests.faults.tables import Table, duckdb_table, iceberg_table, parquet_table, postgresql_table

#: Seconds that each passage of a point takes longer, so that a run lasts long enough for faults to find it at work.
_PACE = {"read": 0.03, "score": 0.06}


#: Of the corpus in a bucket, where every partition costs a dozen requests.
_OBJECTS_ON_S3 = 5


class Scene:
    """What a case plays in.

    Attributes:
        servers: Of the lane.
        profile: What it runs on.
        random: From the seed: every choice of a case comes from it.
        folder: For all files of the run.
        limit: Seconds until each of its commands must have ended.
        objects: What the corpus holds; a case that changes an object changes this, too.
        poisoned: Documents that end the process that scores them, and the reason with which they are to be rejected.
        others: Whether other runs use the same table or work location.
        environment, arguments: What the commands are told beside what they always are.
    """

    def __init__(self, servers: Servers, profile: Profile, folder: Path, seed: int, limit: float) -> None:
        self.servers = servers
        self.profile = profile
        self.folder = folder
        self.random = random.Random(seed)
        self.limit = limit
        self.mark = f"run-{os.getpid()}-{folder.name}"  # lanes, and suites, may run side by side
        self.commands: list[Command] = []
        self.ended: list[Ended] = []
        self.objects: Objects = objects(count=_OBJECTS_ON_S3) if profile.store == "s3" else objects()
        self.environment: dict[str, str] = {}
        self.arguments: dict[str, str] = {}
        self.poisoned: dict[str, str] = {}
        self.others = False
        self._undo = ExitStack()
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True)
        self.control = servers.control
        self.control.clear()
        self.control.pace = dict(_PACE)
        self.control.write()
        self.corpus, self.work, self.lake = self._places()
        for name, documents in self.objects.items():
            self.corpus.put(name, encode(name, documents))
        self.table = self._table()

    def _places(self) -> list[Place]:
        """For the corpus, the work and the files of a Parquet warehouse."""
        names = ("corpus", "work", "lake")
        if self.profile.store == "folder":
            return [FolderPlace(self.folder / name) for name in names]
        bucket = self.servers.s3.make_bucket()
        _ = self.servers.proxy
        return [S3Place(self.servers.s3.endpoint, f"{bucket}/{name}") for name in names]

    def _table(self) -> Table:
        if self.profile.warehouse == "duckdb":
            return duckdb_table(self.folder / "scores.duckdb")
        if self.profile.warehouse == "parquet":
            return parquet_table(self.lake)
        if self.profile.warehouse == "iceberg":
            return iceberg_table(self.folder)
        return postgresql_table(self.servers, f"scores_{self.folder.name.replace('-', '_')}")

    def later(self, undo: Callable[[], object]) -> None:
        """Undo something when the run is over."""
        self._undo.callback(undo)

    def close(self) -> None:
        """Undo what was done to the machine."""
        self._undo.close()

    @property
    def cluster(self) -> Cluster | None:
        """The lane's cluster that it runs on; None where the command makes its own."""
        if self.profile.cluster == "local":
            return None
        return self.servers.tight_cluster if self.profile.cluster == "tight" else self.servers.cluster

    def clock(self) -> Clock:
        """A clock for the processes of the commands to come."""
        made = make_clock(self.servers.folder, "run")
        self.environment |= made.environment
        return made

    # What the product is told.

    def start(self, *verb: str, **options: str) -> Command:
        """Start `corpuscore run`, or another command with the same job."""
        arguments = [sys.executable, "-m", "corpuscore", *(verb or ("run",)), *self._options(options), "--json"]
        command = Command(arguments, self._environment(), self.folder / f"command-{len(self.commands)}")
        self.commands.append(command)
        return command

    def trigger(self) -> DagRun:
        """Start the DAG with the same job."""
        renamed = {"id-column": "id_columns", "corpus": "corpus"}
        conf: dict[str, Any] = {}
        for name, value in self._said({}).items():
            conf[renamed.get(name, name.replace("-", "_"))] = [value] if name in renamed else value
        conf["keep_columns"] = None  # what the form sends for an empty field
        conf["partition_rows"], conf["max_reject_fraction"] = PARTITION_ROWS, 0.05
        return DagRun(self, conf)

    def _options(self, options: dict[str, str]) -> Iterator[str]:
        for name, value in self._said(options).items():
            yield from (f"--{name}", value)

    def _said(self, options: dict[str, str]) -> dict[str, str]:
        cluster = {"cluster": self.cluster.address} if self.cluster else {"cluster": "local", "workers": "2"}
        return {
            "corpus": f"{self.corpus.uri}/",
            "id-column": "id",
            "model": str(self.servers.model),
            "device": "cpu",
            "partition-rows": str(PARTITION_ROWS),
            "max-reject-fraction": "0.05",
            "work": self.work.uri,
            "warehouse": self.table.url,
            "table": self.table.name,
            **cluster,
            **self.arguments,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }

    def _environment(self) -> dict[str, str]:
        return self.servers.environment(**{processes.MARK: self.mark, "TMPDIR": str(self.tmp), **self.environment})

    # How it ends.

    def end(self, command: Command, *, within: float | None = None) -> Ended:
        """Wait for the end of a command, which must come in time and say what is wrong in one line, if anything.

        Raises:
            Fault: It did not end, or showed a traceback, or several errors.
        """
        ended = self._wait(command, within)
        self.ended.append(ended)
        ended.check()
        return ended

    def killed(self, command: Command, *, within: float | None = None) -> Ended:
        """Wait for the end of a command that a signal ended; what it says then is nobody's."""
        ended = self._wait(command, within)
        self.ended.append(ended)
        return ended

    def _wait(self, command: Command, within: float | None) -> Ended:
        seconds = self.limit if within is None else within
        ended = command.wait(seconds)
        if ended is None:
            processes.ask_for_stacks(self.mark)
            said = command.err[-1000:]
            (self.folder / "stacks").write_text(self.control.stacks())
            raise Fault(f"the command did not end within {seconds:.0f} s; it said: {said}")
        return ended

    def finish(self, command: Command | None = None, *, reruns: int = 2, within: float | None = None) -> Ended:
        """Wait for a command and, where it ends with an error, run the same again until it ends well.

        Raises:
            Fault: It does not end well after so many reruns.
        """
        ended = self.end(command or self.start(), within=within)
        for _ in range(reruns):
            if ended.status == 0:
                break
            ended = self.end(self.start(), within=within)
        if ended.status:
            raise Fault(f"after {reruns} reruns: {ended.error}")
        return ended

    def two(self, **options: str) -> None:
        """Start the command with these options, a moment later as it is, and let both end well."""
        first = self.start(**options)
        self.pause(1.5)
        second = self.start()
        self.finish(first)
        self.finish(second)

    def succeeds(self, command: Command | None = None) -> Ended:
        """Wait for a command that must end well by itself."""
        return self.finish(command, reruns=0)

    def fails(self, command: Command, *words: str, within: float | None = None) -> Ended:
        """Wait for a command that must end with an error that holds these words.

        Raises:
            Fault: It ended well, or said something else.
        """
        ended = self.end(command, within=within)
        if not ended.status:
            raise Fault("the command ended well, where an error was due")
        missing = [word for word in words if word.lower() not in ended.error.lower()]
        if missing:
            raise Fault(f"the error does not speak of {missing}: {ended.error}")
        return ended

    def processes(self) -> list[psutil.Process]:
        """All processes of the run."""
        return list(processes.marked(self.mark))

    def nothing_runs(self, *, within: float) -> None:
        """Wait until no process of the run is left.

        Raises:
            Fault: Some are left after so many seconds.
        """
        until = time.monotonic() + within
        while left := self.processes():
            if time.monotonic() > until:
                processes.end(self.mark)
                raise Fault(f"{len(left)} processes were left running after {within:.0f} s: {left[:3]}")
            time.sleep(0.1)

    # Moments.

    def some(self, first: int, last: int) -> int:
        """A number from the seed."""
        return self.random.randint(first, last)

    def pause(self, most: float) -> None:
        """Let some time pass, from the seed."""
        time.sleep(self.random.uniform(0.0, most))

    def rule(self, point: str, do: str, **how: Any) -> str:
        """See Rule."""
        return self.control.add(Rule(point, do, **how))

    def strike(self, point: str, sign: str = "SIGKILL", **how: Any) -> str:
        """Let processes signal themselves at a point."""
        return self.rule(point, sign, **how)

    @contextmanager
    def held(self, command: Command, rule_id: str) -> Iterator[int]:
        """While a process of a command is held where a rule says; its pid."""
        pid = self.control.wait_held(rule_id, lambda: command.running)
        try:
            yield pid
        finally:
            self.control.release(rule_id)

    @contextmanager
    def at(self, point: str, **how: Any) -> Iterator[Command]:
        """Start the command and hold it at a point, for the length of the block."""
        rule_id = self.rule(point, "hold", **how)
        command = self.start()
        with self.held(command, rule_id):
            yield command

    def reached(self, command: Command, point: str, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until the processes of a command have passed a point so often (or it has ended)."""

        def met() -> bool:
            return self.control.passed(point).get(point, 0) >= times or not command.running

        processes.until(met, seconds, f"passage {times} of {point!r}")

    def workers(self) -> list[psutil.Process]:
        """Worker processes of the run's cluster."""
        return self.cluster.workers() if self.cluster else processes.workers(self.mark)

    def kill(self, victims: Sequence[psutil.Process], sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to processes."""
        for victim in victims:
            processes.kill(victim, sign)

    # The corpus.

    def put(self, name: str, documents: list[Document]) -> None:
        """Put an object, here and where the run reads."""
        self.objects[name] = documents
        self.corpus.put(name, encode(name, documents))

    def remove(self, name: str) -> None:
        """Remove an object, here and where the run reads."""
        del self.objects[name]
        self.corpus.delete(name)
