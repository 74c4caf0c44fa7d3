"""The tree of ticks that was played: branches, bookmarks, and what they began from. Data alone.

A branch begins after a tick of another one and goes its own way; what came before belongs to both. A root
begins at a scene with a seed. Nothing in a tree is ever taken back: it only grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from playhead.engine.recording.schema import RecordingError
from playhead.world.action import Action


class Point(NamedTuple):
    """A moment: the state after tick number `tick` on the way to `branch`. Tick 0 is the start."""

    branch: int
    tick: int

    def __str__(self) -> str:
        return f"{self.branch}:{self.tick}"


class PlayedTick(msgspec.Struct, gc=False):
    """A tick as it was played. A recording has a million of them: Python's collector, which delays all
    threads while it looks at what there is, does not look at these.

    `source`: who played it (`keyboard`, `script`, `bridge`, `model`, `replay`). `time`: when, in seconds
    since 1970. `took`: seconds from the input to the frames. `hash`: of the frames, chained, and `seal`, of
    its row: empty until the recorder has filled them in.
    """

    action: Action
    steps: int
    source: str
    time: float
    took: float
    hash: bytes = b""
    seal: bytes = b""


@dataclass
class Branch:
    """Ticks that were played one after the other. `ticks[0]` is number `first` + 1.

    `parent`: the point that it begins from, None for a root. `start`: the hash of the frames there. `play`:
    the play that it belongs to, and with that the machine it was simulated on.
    """

    id: int
    parent: Point | None
    scene: int
    seed: int
    play: int
    start: bytes = b""
    time: float = 0.0
    seal: bytes = b""
    ticks: list[PlayedTick] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The number of the tick that it begins after."""
        return self.parent.tick if self.parent is not None else 0

    @property
    def last(self) -> int:
        """The number of its last tick."""
        return self.first + len(self.ticks)

    @property
    def hash(self) -> bytes:
        """The hash that the next tick's is chained to, as long as it has none."""
        return self.start

    @property
    def tip(self) -> "Sealed":
        """What its next tick follows: its last one, or itself."""
        return self.ticks[-1] if self.ticks else self


Sealed = PlayedTick | Branch
"""What ticks and branches follow: by its `hash` and `seal`, theirs are chained."""


@dataclass(frozen=True)
class Bookmark:
    """A point with a name."""

    id: int
    name: str
    point: Point
    time: float


class Tree:
    """Branches by number, and bookmarks in the order in which they were made."""

    def __init__(self) -> None:
        self.branches: dict[int, Branch] = {}
        self.bookmarks: list[Bookmark] = []

    @property
    def newest(self) -> int:
        """The branch that was begun last. Raises RecordingError where there is none."""
        if not self.branches:
            raise RecordingError("nothing was played yet, so there is no branch")
        return max(self.branches)

    @property
    def count(self) -> int:
        """Ticks of all branches."""
        return sum(len(branch.ticks) for branch in list(self.branches.values()))

    def branch(self, number: int) -> Branch:
        """Raises RecordingError, naming the branches there are, for another one."""
        if number not in self.branches:
            known = ", ".join(map(str, sorted(self.branches)[:20])) or "none"
            raise RecordingError(f"there is no branch {number}; there are {known}")
        return self.branches[number]

    def check(self, point: Point) -> Point:
        """The same moment, named by the branch that the tick was played in.

        Raises RecordingError for a moment that there is not.
        """
        branch = self.branch(point.branch)
        if not 0 <= point.tick <= branch.last:
            raise RecordingError(
                f"branch {point.branch} has ticks 0 to {branch.last}, so none numbered {point.tick}"
            )
        while branch.parent is not None and point.tick <= branch.first:
            branch = self.branches[branch.parent.branch]
        return Point(branch.id, point.tick)

    def check_range(self, number: int, first: int, last: int) -> None:
        """Raises RecordingError for ticks that the way to a branch's end does not have."""
        end = self.branch(number).last
        if not 0 <= first <= last <= end:
            raise RecordingError(f"branch {number} has ticks 0 to {end}, so none from {first} to {last}")

    def end(self, number: int) -> Point:
        """The last moment of a branch."""
        return self.check(Point(number, self.branch(number).last))

    def lineage(self, number: int) -> list[Branch]:
        """The branches on the way to this one, from its root on."""
        line = [self.branch(number)]
        while (parent := line[-1].parent) is not None:
            line.append(self.branches[parent.branch])
        return line[::-1]

    def path(self, number: int, last: int | None = None) -> list[PlayedTick]:
        """All ticks from the start to the end of a branch, or to tick `last`; tick n is number n - 1."""
        line = self.lineage(number)
        ticks: list[PlayedTick] = []
        for branch, after in zip(line, [*line[1:], None], strict=True):
            ticks += branch.ticks[: None if after is None else after.first - branch.first]
        return ticks[:last]

    def root(self, number: int) -> Branch:
        return self.lineage(number)[0]

    def tick(self, point: Point) -> PlayedTick | None:
        """The tick that led to a point; None at the start."""
        point = self.check(point)
        branch = self.branches[point.branch]
        return branch.ticks[point.tick - branch.first - 1] if point.tick else None

    def sealed(self, point: Point) -> Sealed:
        """What a branch from a point follows: the tick that led there; at the start, the root."""
        return self.tick(point) or self.branches[self.check(point).branch]

    def hash_at(self, point: Point) -> bytes:
        """The chained hash of the frames of a point; empty where it is not known."""
        return self.sealed(point).hash

    def children(self, number: int) -> list[Branch]:
        """The branches that begin from this one."""
        branches = list(self.branches.values())
        return [b for b in branches if b.parent is not None and b.parent.branch == number]

    def parse(self, text: str) -> Point:
        """The moment that a text names; empty: the end of the newest branch.

        `140` is a tick of the newest branch, `2:140` one of branch 2, `2:` that branch's end, anything else
        the name of a bookmark. Raises RecordingError where there is no such moment.
        """
        number, tick = find_moment(text, {mark.name: mark.point for mark in self.bookmarks})
        number = self.newest if number is None else number
        return self.end(number) if tick is None else self.check(Point(number, tick))


def find_moment(text: str, bookmarks: Mapping[str, Point]) -> tuple[int | None, int | None]:
    """The branch and the tick that a text names, as `Tree.parse` reads it.

    None is the newest branch, and a branch's end. Raises RecordingError for what can be no moment.
    """
    branch, colon, tick = text.strip().rpartition(":")
    numbers = [part for part in (branch, tick) if part]
    if all(part.isdecimal() and len(part) < 19 for part in numbers) and bool(branch) == bool(colon):
        return int(branch) if colon else None, int(tick) if tick else None
    if text.strip() in bookmarks:
        return bookmarks[text.strip()]
    names = ", ".join(bookmarks) or "none"
    raise RecordingError(
        f"`{text}` is no moment: it is a tick (140), one of a branch (2:140), or a bookmark ({names})"
    )
