"""A segment: a branch of a recording from one tick to another, dreamed again, as a film or as data."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from playhead.engine.recording.finding import find_recording
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import ReplayedTick, load_world, replay, telling
from playhead.render.export.episodes import ExportedTick
from playhead.render.export.export import ExportError
from playhead.render.export.film import Pane
from playhead.world.action import Action
from playhead.world.offload.memory_budget import MemoryBudget
from playhead.world.world import World


@dataclass(frozen=True)
class Segment:
    """Ticks `first` to `last`, from 1 on, of a branch; the world is loaded when it is needed.

    `complain` is told in a sentence if what is dreamed is not what was played. Raises ExportError for ticks
    that there are not.
    """

    recording: Recording
    open_world: Callable[[], World]
    branch: int
    first: int
    last: int
    complain: Callable[[str], None]

    def __post_init__(self) -> None:
        end = self.recording.tree.branch(self.branch).last
        if not 1 <= self.first <= self.last <= end:
            has = f"ticks 1 to {end}" if end else "no ticks"
            raise ExportError(
                f"branch {self.branch} of {self.recording.path} has {has}, so none from {self.first} to "
                f"{self.last}"
            )

    @cached_property
    def world(self) -> World:
        return self.open_world()

    @cached_property
    def actions(self) -> list[Action]:
        """What was held at each tick."""
        played = self.recording.tree.path(self.branch, self.last)
        return [tick.action for tick in played[self.first - 1 :]]

    def moments(self) -> Iterator[ExportedTick]:
        """The moment before the first tick, and then each tick."""
        for replayed in self._replay(self.first - 1):
            action = replayed.played.action if replayed.played is not None else None
            yield ExportedTick(replayed.point.tick, action, replayed.frames)

    def panes(self, title: str = "") -> Iterator[list[Pane]]:
        """Each tick as a film shows it, a pane a frame. `title`: what to call it beside another take."""
        for replayed in self._replay(self.first):
            held = replayed.played.action.in_words(digits=2) if replayed.played is not None else ()
            yield [Pane(frame, held, replayed.point.tick, title) for frame in replayed.frames]

    def _replay(self, first: int) -> Iterator[ReplayedTick]:
        moments = replay(self.recording, self.world, self.branch, first, self.last)
        return telling(moments, self.recording, self.world, self.complain)


class RecordingLoader:
    """Recordings and the worlds they were played in, each opened once.

    `world`: a name or folder in place of the recordings' own.
    """

    def __init__(
        self,
        world: str | None,
        device: str,
        complain: Callable[[str], None],
        precision: str | None = None,
        decoder: str | None = None,
        budget: MemoryBudget | None = None,
        cache: str | None = None,
    ) -> None:
        self._world, self._device, self._complain = world, device, complain
        self._given = precision, decoder, budget, cache
        self._recordings: dict[Path, Recording] = {}
        self._worlds: dict[str, World] = {}

    def segment(self, name: str, branch: int | None, first: int, last: int | None) -> Segment:
        """Ticks of a branch, None: the newest, to `last` or its end; of FILE@POINT those that led there."""
        recording, point = self._open(name)
        tree = recording.tree
        if point:
            moment = tree.parse(point)
            branch = moment.branch if branch is None else branch
            last = moment.tick if last is None else last
        number = tree.newest if branch is None else branch
        last = tree.branch(number).last if last is None else last
        return Segment(recording, lambda: self._load(recording), number, first, last, self._complain)

    def beside(self, name: str, other: str, first: int, last: int | None) -> Segment:
        """What stands beside a segment of `name`: its branch (2), FILE, or FILE@POINT; it may end earlier."""
        if not other.isdecimal():
            segment = self.segment(other, None, first, None)
        else:
            segment = self.segment(str(self._open(name)[0].path), int(other), first, None)
        return replace(segment, last=segment.last if last is None else min(segment.last, last))

    def data(self, names: Iterable[str], branch: int | None, first: int, last: int | None) -> list[Segment]:
        """What a data set is made of: a branch from the start on or, of None, what each branch alone has.

        Raises ExportError where that is nothing.
        """
        segments = []
        for name in names:
            tree = self._open(name)[0].tree
            for one in tree.branches.values() if branch is None else [tree.branch(branch)]:
                begins = max(first, one.first + 1) if branch is None else first
                ends = one.last if last is None else min(last, one.last)
                if begins <= ends:
                    segments.append(self.segment(name, one.id, begins, ends))
        if not segments:
            raise ExportError("no tick was played there, so there is nothing to make a data set of")
        return segments

    def _open(self, name: str) -> tuple[Recording, str]:
        path, point = find_recording(name)
        if path not in self._recordings:
            self._recordings[path] = Recording.read(path)
        return self._recordings[path], point

    def _load(self, recording: Recording) -> World:
        if recording.world not in self._worlds:
            given = self._world, self._device, *self._given
            self._worlds[recording.world] = load_world(recording, *given)
        return self._worlds[recording.world]
