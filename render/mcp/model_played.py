"""What the tools of a language model ask of sessions, wherever these are: here, or on a running server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from playhead.engine.bridge.wire.protocol import SceneInfo, WorldInfo
from playhead.engine.recording.tree import Point
from playhead.world.action import Action, ActionSpace


@dataclass(frozen=True)
class Seen:
    """What a tick looked like in the end: uint8 `(H, W, 3)`."""

    tick: int
    frame: np.ndarray


@dataclass(frozen=True)
class Branched:
    """A branch: its number, where it left another one (None: it began at the start), its last tick."""

    id: int
    parent: Point | None
    last: int


class Played(Protocol):
    """A session that a model plays; for any thread. Everything raises PlayheadError for what cannot be."""

    @property
    def info(self) -> WorldInfo: ...

    @property
    def scene(self) -> SceneInfo: ...

    @property
    def recorded(self) -> bool:
        """Whether what is played is kept in a file."""

    @property
    def failure(self) -> str:
        """Why it is not kept any more, if it was to be."""

    @property
    def point(self) -> Point | None:
        """Where the session stands on its timeline; None where it has none."""

    @property
    def exact(self) -> bool | None:
        """Whether the last way back led to what was played, bit for bit; None where nobody says."""

    def look(self) -> Seen:
        """The newest tick, or the start."""

    def act(self, actions: Sequence[Action], pictures: int) -> list[Seen]:
        """Plays actions, a tick each. Returns so many of the ticks, evenly spaced, the last one among them.

        Raises ActionError, before anything is played, for one that this session cannot play.
        """

    def rewind(self, ticks: int) -> None:
        """Goes back by so many ticks, at most to the start."""

    def branch(self, moment: str) -> None:
        """Goes to a moment of what was played, as `Tree.parse` reads it; what is played next is a branch."""

    def bookmark(self, name: str) -> tuple[str, Point]:
        """Gives the present moment a name; an empty one is made up. Returns both."""

    def save(self, name: str) -> tuple[str, int]:
        """Writes all that was played to a file of its own. Returns its name and its ticks."""

    def moments(self) -> tuple[list[Branched], list[tuple[str, Point]]]:
        """The branches and bookmarks, the newest last."""


class PlayedSessions(Protocol):
    """The sessions of those who connect, by names; for any thread. Everything raises PlayheadError."""

    def worlds(self) -> list[WorldInfo]:
        """What may be opened."""

    def space(self, world: WorldInfo) -> ActionSpace:
        """What may be held in a world, as far as it is known here."""

    def open(self, world: str, scene: str, seed: int | None, steps: int | None) -> tuple[str, Played]:
        """Opens a session, which stands still; empty names: the first there is. Returns its name too."""

    def find(self, name: str) -> tuple[str, Played]:
        """The session of a name and, where there is one connection, of none."""

    def end(self, name: str) -> Played:
        """Ends a session; what it recorded stays."""

    def recordings(self, most: int) -> list[dict[str, object]]:
        """The newest recordings, at a glance."""

    def close(self) -> None:
        """Ends them all."""


def chosen_ticks(count: int, pictures: int) -> list[int]:
    """Which of `count` ticks are shown, counted from 0: so many, evenly spaced, the last one among them."""
    shown = min(pictures, count)
    return sorted({count - 1 - i * count // shown for i in range(shown)}) if shown else []
