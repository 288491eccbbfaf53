"""What a case is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.profile import Profile
from tests.faults.scene import Scene

Play = Callable[[Scene], None]

#: Seconds until a command of a case must have ended, where the case says nothing else.
LIMIT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Case:
    """A fault and what is played to provoke it.

    Attributes:
        name: `room: what happens`.
        does: In a sentence.
        play: Starts the command, strikes, and sees that it ends as it must; what then must hold is examined after it.
        profile: What it runs on.
        limit: Seconds until each of its commands must have ended.
        seeds: How many are worth their time, of a series.
        short: Seed in the short form, None: not in it.
        hurts: It leaves the shared cluster in another state, which is then started again.
    """

    name: str
    does: str
    play: Play
    profile: Profile
    limit: float
    seeds: int
    short: int | None
    hurts: bool

    @property
    def room(self) -> str:
        """What is struck."""
        return self.name.partition(":")[0]


ALL: dict[str, Case] = {}


def case(
    name: str,
    *,
    profile: Profile = Profile(),  # noqa: B008  # frozen
    limit: float = LIMIT_SECONDS,
    seeds: int = 10,
    short: int | None = None,
    hurts: bool = False,
) -> Callable[[Play], Play]:
    """Put a function into the table; its docstring says what it does."""

    def add(play: Play) -> Play:
        assert name not in ALL
        does = " ".join((play.__doc__ or "").split())
        ALL[name] = Case(name, does, play, profile, limit, seeds, short, hurts)
        return play

    return add
