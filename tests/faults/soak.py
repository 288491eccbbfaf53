"""Random faults for a long time over a larger corpus, and the same checks at its end."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.case import Play
from tests.faults.cases.files import damage
from tests.faults.command import Command, Ended, Fault
from tests.faults.control import Missed
from tests.faults.corpus import objects
from tests.faults.profile import Profile
from tests.faults.runner import Lane
from tests.faults.scene import Scene

#: So many times the corpus of a case: some 200 partitions.
_COPIES = 8
_PROFILE = Profile(store="s3", warehouse="postgresql")
_COMMAND_SECONDS = 600.0
_PAUSE_SECONDS = (1.0, 8.0)


def soak(folder: Path, seed: int, seconds: float) -> int:
    """Run; exit status 0 where everything held.

    Args:
        folder: For its files.
        seed: Of every choice.
        seconds: For how long faults strike.
    """
    print(f"soak: seed {seed}, {seconds / 60:.0f} minutes, files in {folder}", flush=True)
    with Lane(folder, keep=True) as lane:
        outcome = lane.play("soak", _play(seconds), _PROFILE, seed, _COMMAND_SECONDS, hurts=True)
    print(f"soak: seed {seed}: {outcome.outcome} after {outcome.seconds:.0f} s. {outcome.message}", flush=True)
    return 0 if outcome.outcome == "survived" else 1


def _play(seconds: float) -> Play:
    def play(scene: Scene) -> None:
        for name in list(scene.objects):
            scene.remove(name)
        for name, documents in objects(copies=_COPIES).items():
            scene.put(name, documents)
        Soak(scene, seconds).run()

    return play


class Soak:
    """Commands that follow each other, and faults that strike them meanwhile."""

    def __init__(self, scene: Scene, seconds: float) -> None:
        self._scene = scene
        self._until = time.monotonic() + seconds
        self._command: Command | None = None
        self._struck: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._calm = threading.Event()
        self._versions = {1: objects(1, copies=_COPIES), 2: objects(2, copies=_COPIES)}
        self._broken: list[str] = []

    def run(self) -> None:
        """Strike until the time is over, then let it end well."""
        striker = threading.Thread(target=self._strike, daemon=True)
        striker.start()
        try:
            while time.monotonic() < self._until:
                self._one_command()
                self._change()
        finally:
            self._calm.set()
            striker.join()
        self._scene.servers.heal()
        self._scene.servers.cluster.restart()
        self._scene.finish(reruns=3)
        print(f"soak: commands {dict(self._ends)}, faults {dict(self._struck)}", flush=True)
        if self._broken:
            raise Fault("; ".join(self._broken[:5]))

    def _one_command(self) -> None:
        self._command = command = self._scene.start()
        ended = command.wait(_COMMAND_SECONDS)
        if ended is None:
            raise Fault(f"a command did not end within {_COMMAND_SECONDS:.0f} s: {command.err[-1000:]}")
        self._ends[_kind(ended)] += 1
        if ended.status >= 0:
            try:
                ended.check()
            except Fault as error:
                self._broken.append(str(error))

    def _change(self) -> None:
        """Give the next command something to do: other versions of some objects."""
        for name in self._scene.random.sample(sorted(self._scene.objects), 6):
            now = self._scene.objects[name] == self._versions[1][name]
            self._scene.put(name, self._versions[2 if now else 1][name])

    def _strike(self) -> None:
        chance = random.Random(self._scene.random.random())
        while not self._calm.wait(chance.uniform(*_PAUSE_SECONDS)):
            name, strike = chance.choice(sorted(self._strikes(chance).items()))
            try:
                strike()
                self._struck[name] += 1
            except (IndexError, OSError, Missed):  # nothing is there to be struck just now
                continue

    def _strikes(self, chance: random.Random) -> dict[str, Callable[[], None]]:
        scene, cluster, proxy, pg = (
            self._scene,
            self._scene.servers.cluster,
            self._scene.servers.proxy,
            self._scene.servers.database.proxy,
        )

        def rules() -> None:
            for fault in chance.sample(["503 SlowDown", "500", "reset", "truncated", "lost", "unsent", "shortened"], 3):
                proxy.rule(fault, probability=0.05, seconds=10.0, seed=chance.randrange(10**6))

        def stop() -> None:
            victim = [chance.choice(cluster.workers())]
            scene.kill(victim, signal.SIGSTOP)
            self._calm.wait(chance.uniform(0.5, 4.0))
            scene.kill(victim, signal.SIGCONT)

        def restart_scheduler() -> None:
            cluster.end_scheduler()
            cluster.start_scheduler()
            cluster.start_workers()

        def refuse() -> None:
            pg.refuse()
            pg.cut_all()
            self._calm.wait(chance.uniform(1.0, 4.0))
            pg.refuse(False)

        def kill_command() -> None:
            if self._command and chance.random() < 0.3:
                self._command.send(chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))

        return {
            "a worker killed": lambda: scene.kill([chance.choice(cluster.workers())]),
            "all workers killed": lambda: scene.kill(cluster.workers()),
            "a worker stopped and woken": stop,
            "the scheduler restarted": restart_scheduler,
            "S3 faulty": rules,
            "S3 down": lambda: proxy.down(chance.uniform(1.0, 6.0)),
            "the warehouse's connections cut": pg.cut_all,
            "the warehouse down": refuse,
            "the command ended": kill_command,
            "a file damaged": lambda: _damaged(scene),
        }


def _damaged(scene: Scene) -> None:
    damage(scene, r"^(receipts|parts)/")


def _kind(ended: Ended) -> str:
    if ended.status < 0:
        return signal.Signals(-ended.status).name
    return "done" if ended.status == 0 else ended.err[ended.err.rfind("error: ") :][:60] or f"status {ended.status}"
