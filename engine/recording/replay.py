"""Simulates a recording again, and says what differs where it does not come out the same."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.fingerprint import differences, environment, fingerprint
from playhead.engine.parallel.start import load_world as load_on
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.schema import RecordingError, chain
from playhead.engine.recording.tree import Branch, PlayedTick, Point
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.offload.memory_budget import MemoryBudget
from playhead.world.wide.width_choice import WIDEST
from playhead.world.world import World
from playhead.world.world_folders import added_worlds, shipped_worlds

if TYPE_CHECKING:
    from playhead.engine.timeline.timeline import Timeline


@dataclass(frozen=True)
class ReplayedTick:
    """A moment that was simulated again: its frames, uint8 `(n, H, W, 3)`, and whether they are as recorded.

    `played`: the tick that led to it, None at the start. `latents`: of its frames, float32 `(F, C, h, w)`.
    """

    point: Point
    played: PlayedTick | None
    frames: np.ndarray
    equal: bool
    latents: np.ndarray


@dataclass(frozen=True)
class Divergence:
    """The first tick (0: the start) whose frames differ, and what else differs, in words."""

    point: Point
    causes: list[str]


def load_world(
    recording: Recording,
    world: str | None,
    device: str,
    precision: str | None = None,
    decoder: str | None = None,
    budget: MemoryBudget | None = None,
    cache: str | None = None,
    gpus: int | None = None,
    decoder_device: str | None = None,
) -> World:
    """The world that a recording was played in. Raises PlayheadError where it is not known here."""
    if world is None and recording.world not in {*shipped_worlds(), *added_worlds()}:
        raise RecordingError(
            f"{recording.path} was played in a world `{recording.world}`; give its folder by --world"
        )
    loaded = load_on(
        world or recording.world, gpus, device,
        precision=precision, decoder=decoder, budget=budget, cache=cache, decoder_device=decoder_device,
    )  # fmt: skip
    loaded.share_cores()
    width = _width(recording, loaded)
    if width and not loaded.why_not_wide:
        loaded.widen(width)
    return loaded


def _width(recording: Recording, world: World) -> int:
    """How many rows the passes had that a recording was played by on such a device, if all had as many."""
    played = [kept for _, kept in recording.plays.values() if kept.get("device") == world.device.type]
    widths = {kept.get("width", "") for kept in played}
    width = widths.pop() if len(widths) == 1 else ""
    return int(width) if width.isdecimal() and 1 < int(width) <= WIDEST else 0


def open_session(recording: Recording, world: World, branch: int) -> Session:
    """A session at the start of a branch. Raises WorldError if the scene cannot be played in this world."""
    return Session(world, recording.context(branch), recording.tree.root(branch).seed)


def replay(
    recording: Recording,
    world: World,
    branch: int | None = None,
    first: int = 0,
    last: int | None = None,
    steps: int | None = None,
) -> Iterator[ReplayedTick]:
    """Simulates a branch (None: the newest) from its start on; yields its moments `first` to `last`.

    `steps`: so many denoise steps a tick in place of the recorded ones. Raises RecordingError for a branch
    or ticks that there are not.
    """
    tree = recording.tree
    number = tree.newest if branch is None else branch
    last = tree.branch(number).last if last is None else last
    tree.check_range(number, first, last)
    session = open_session(recording, world, number)
    before = tree.root(number).start
    if first == 0:
        point = tree.check(Point(number, 0))
        yield ReplayedTick(point, None, session.frames, chain(b"", session.frames) == before, session.latents)
    for tick, played in enumerate(tree.path(number, last), 1):
        session.steps = played.steps if steps is None else steps
        frames = session.step(played.action)
        if tick >= first:
            point = tree.check(Point(number, tick))
            yield ReplayedTick(point, played, frames, chain(before, frames) == played.hash, session.latents)
        before = played.hash


def replay_all(recording: Recording, world: World, steps: int | None = None) -> Iterator[ReplayedTick]:
    """Simulates every tick of every branch, each once.

    Where branches part, the shorter ways are gone first: so only a few snapshots have to wait at a time.
    `steps`: so many denoise steps a tick in place of the recorded ones.
    """
    tree = recording.tree
    children: dict[Point, list[Branch]] = defaultdict(list)
    total = {number: len(branch.ticks) for number, branch in tree.branches.items()}
    for branch in reversed(tree.branches.values()):  # a branch comes after the one that it begins from
        if branch.parent is not None:
            point = tree.check(branch.parent)
            children[point].append(branch)
            total[point.branch] += total[branch.id]

    def weight(branch: Branch, tick: int) -> int:
        """Ticks on all ways from here on."""
        if tick == branch.first:
            return total[branch.id]
        later = (b for p, found in children.items() if p.branch == branch.id and p.tick > tick for b in found)
        return branch.last - tick + sum(total[b.id] for b in later)

    for root in [branch for branch in tree.branches.values() if branch.parent is None]:
        session = open_session(recording, world, root.id)
        equal = chain(b"", session.frames) == root.start
        yield ReplayedTick(Point(root.id, 0), None, session.frames, equal, session.latents)
        ways = [(root, 0, session.snapshot())]
        while ways:
            branch, tick, snapshot = ways.pop()
            session.restore(snapshot)
            before = tree.hash_at(Point(branch.id, tick))
            while True:
                parting = children.pop(Point(branch.id, tick), [])
                if parting:
                    state = session.snapshot()
                    here = [(branch, tick), *((child, tick) for child in parting)]
                    ways += [(*way, state) for way in sorted(here, key=lambda way: -weight(*way))]
                    break
                if tick >= branch.last:
                    break
                played, tick = branch.ticks[tick - branch.first], tick + 1
                session.steps = played.steps if steps is None else steps
                frames = session.step(played.action)
                equal = chain(before, frames) == played.hash
                yield ReplayedTick(Point(branch.id, tick), played, frames, equal, session.latents)
                before = played.hash


def causes(
    recording: Recording, world: World, point: Point | None = None, steps: int | None = None
) -> list[str]:
    """What differs between the recording's world and machine and those here, in words.

    `point`: where that was noticed. `steps`: the denoise steps a tick that were asked for instead.
    """
    number = recording.tree.newest if point is None else point.branch
    found = differences(recording.fingerprint, fingerprint(world))
    played = recording.tree.tick(point) if point is not None else None
    if played is not None and steps is not None and played.steps != steps:
        found.append(f"the denoise steps a tick (recorded {played.steps}, here {steps})")
    return [*found, *differences(recording.environment(number), environment(world))]


def telling(
    moments: Iterable[ReplayedTick], recording: Recording, world: World, complain: Callable[[str], None]
) -> Iterator[ReplayedTick]:
    """Passes moments on; `complain` is told once, in a sentence, where they are no longer what was played."""
    told = False
    for moment in moments:
        if not (moment.equal or told):
            why = "; ".join(causes(recording, world, moment.point)) or "no cause is known"
            complain(f"from tick {moment.point.tick} on this is not what was played: {why}")
            told = True
        yield moment


def verify(
    recording: Recording,
    world: World,
    branch: int | None = None,
    steps: int | None = None,
    *,
    first: int = 0,
    last: int | None = None,
    track: Callable[[Iterable[ReplayedTick]], Iterable[ReplayedTick]] = iter,
) -> Divergence | None:
    """The first tick of a branch (from `first` to `last`), or of all, that differs when simulated again; None
    if none does. `track` passes on the moments that are looked at, to show how far it is.
    """
    if branch is None:
        moments = replay_all(recording, world, steps)
    else:
        moments = replay(recording, world, branch, first, last, steps)
    for moment in track(moments):
        if not moment.equal:
            return Divergence(moment.point, causes(recording, world, moment.point, steps))
    return None


class ReplaySource:
    """A source of actions that plays a branch again, from wherever a timeline stands on the way to it.

    It sets the session's denoise steps too: those recorded, or `steps`. `done`: past tick `last`, or off
    the way.
    """

    source = "replay"

    def __init__(
        self, timeline: "Timeline", session: Session, branch: int, last: int, steps: int | None = None
    ) -> None:
        self._timeline, self._session, self._last, self._steps = timeline, session, last, steps
        timeline.follow(branch)

    @property
    def done(self) -> bool:
        head = self._timeline.head
        return head is None or head.tick >= self._last or self._timeline.next_tick() is None

    def sample(self) -> Action:
        played = self._timeline.next_tick()
        if played is None:
            return Action()
        self._session.steps = played.steps if self._steps is None else self._steps
        return played.action
