"""Scrubbing: while a key is held the world stands still, and what was played passes by, back or forward.

Whoever lets go plays on from there, on a branch of its own where that is not the end of one.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from playhead.engine.loop import Loop
from playhead.render.window.nested_pause import NestedPause
from playhead.render.window.preview import Preview

if TYPE_CHECKING:
    from playhead.engine.recording.tree import Point
    from playhead.engine.timeline.timeline import Timeline

HESITATION = 0.3
"""Seconds for which a key that is held counts as a tap, of a single tick; then the ticks run."""
FASTEST = 256.0
"""How many times as fast as the world they run in the end."""
DOUBLES = 0.7
"""Seconds in which they come to run twice as fast."""
REFRESH = 1 / 30
"""Seconds between two looks while they run."""


def distance(held: float, rate: float) -> int:
    """How many ticks a key goes that is held for so many seconds, in a world of `rate` ticks a second.

    >>> [distance(held, 10) for held in (0.0, 0.2, 1.0, 1.7, 3.1)]
    [1, 1, 8, 22, 106]
    """
    run, ticks, speed = held - HESITATION, 1.0, 1.0
    while run > 0:
        ticks += min(run, DOUBLES) * rate * speed
        run -= DOUBLES
        speed = min(2 * speed, FASTEST)
    return int(ticks)


class Scrub:
    """Where it is and what is seen there. Used by the window's thread alone.

    `active` from the first key until play goes on; `point` is None until the world stands still. `complain`
    is told what went wrong; `wake` is called, by another thread, when there is something to take.
    """

    def __init__(
        self,
        loop: Loop,
        timeline: "Timeline",
        preview: Preview,
        pause: NestedPause,
        complain: Callable[[str], None],
        wake: Callable[[], None],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loop, self._timeline = loop, timeline
        self._preview, self._pause = preview, pause
        self._complain, self._wake, self._now = complain, wake, now
        self.active = False
        self.point: Point | None = None
        self._branch = 0  # the branch along which it goes
        self._keys: list[int] = []
        self._tapped = False
        self._offset, self._since = 0, 0.0
        self._origin: Future[Point | None] | None = None
        self._going: Future[Any] | None = None

    @property
    def held(self) -> bool:
        """Whether a key is down."""
        return bool(self._keys)

    def press(self, direction: int) -> None:
        """A key goes down, -1 back or 1 forward. Of two keys the later one counts."""
        if direction in self._keys or self._loop.world is None:
            return
        if self._origin is None:
            self._begin()
        self._turn()
        self._keys.append(direction)
        self._tapped = True

    def release(self, direction: int) -> None:
        """A key goes up; with the last one play goes on."""
        if direction in self._keys:
            self._turn()
            self._keys.remove(direction)
            self._tapped = False  # a key that is still down goes on, it was not pressed anew

    def release_all(self) -> None:
        """All keys go up, as when the window loses the focus and will not see it happen."""
        for direction in list(self._keys):
            self.release(direction)

    def update(self) -> bool:
        """Goes on and takes what has come. Returns whether anything else is to be seen now."""
        if self._going is not None:
            return self._arrive()
        if self._origin is None or not self._origin.done():
            return False
        before = self.point, self._preview.point
        origin = self._origin.result()
        if origin is None:
            self._complain("there is nothing to go back to")
            self._go_on(None)
            return True
        if self._branch not in self._timeline.tree.branches or self._on_branch(origin.tick) != origin:
            self._branch = origin.branch
        self.point = point = self._on_branch(self._tick(origin))
        self._preview.look(point)
        if not self._keys:
            self._go_on(None if point is None or point == origin else self._loop.seek(point))
        return (self.point, self._preview.point) != before

    def _begin(self) -> None:
        self._pause.begin()
        self.active, self._offset, self._going = True, 0, None
        self._origin = self._loop.ask(lambda session: self._timeline.head)
        self._origin.add_done_callback(lambda _: self._wake())

    def _turn(self) -> None:
        """Counts what the keys have moved so far."""
        if self._keys:
            self._offset += self._moved()
            if self._origin is not None and self._origin.done() and (origin := self._origin.result()):
                self._offset = self._tick(origin, 0) - origin.tick
        self._since = self._now()

    def _moved(self) -> int:
        assert self._loop.world is not None
        rate = self._loop.world.config.ticks_per_second
        return self._keys[-1] * (distance(self._now() - self._since, rate) - (not self._tapped))

    def _tick(self, origin: "Point", moved: int | None = None) -> int:
        """The tick that it has come to, no further than the line goes."""
        moved = (self._moved() if self._keys else 0) if moved is None else moved
        branch = self._timeline.tree.branches.get(self._branch)
        end = branch.last if branch is not None else origin.tick
        return min(max(origin.tick + self._offset + moved, 0), end)

    def _on_branch(self, tick: int) -> "Point | None":
        from playhead.engine.recording.tree import Point

        tree = self._timeline.tree
        return tree.check(Point(self._branch, tick)) if tick <= tree.branch(self._branch).last else None

    def _go_on(self, going: "Future[Any] | None") -> None:
        """Ends the standing still; play goes on once the session is there."""
        self._origin = None
        self._pause.end()
        self._going = going
        if going is None:
            self._finish()
        else:
            going.add_done_callback(lambda _: self._wake())

    def _arrive(self) -> bool:
        assert self._going is not None
        if not self._going.done():
            return False
        error = self._going.exception()
        if error is not None:
            self._complain(str(error))
        self._going = None
        self._finish()
        return True

    def _finish(self) -> None:
        self.active, self.point = False, None
        self._preview.forget()
