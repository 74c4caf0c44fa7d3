"""What the window offers of the timeline: scrubbing, undoing, bookmarks, and the list of moments to go to."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import pygame

from playhead.engine.loop import Loop
from playhead.render.window.nested_pause import NestedPause
from playhead.render.window.panels import MomentList, TextPrompt
from playhead.render.window.preview import Preview
from playhead.render.window.scrub import REFRESH, Scrub
from playhead.render.window.strip import Strip
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from playhead.engine.recording.tree import Point
    from playhead.engine.timeline.timeline import Timeline

SCRUBS = {"scrub_back": -1, "scrub_forward": 1}
"""The functions of keys that are held, and where they go."""
SHOWN = 2.0
"""Seconds for which the strip stays after what was done to the timeline."""
MOVING = {"pause", "single_step", "restart", "new_seed", "next_scene", "previous_scene"}
"""Functions that would move the world while it stands still to be looked at."""
PASSED_ON = range(pygame.K_F1, pygame.K_F12 + 1)
"""Keys that a list or a line to type into leaves to the window."""


class TimelineControls:
    """Used by the window's thread alone, once the loop has a timeline.

    `say` shows a note; `wake` is called, by another thread, when there is something new to see.
    """

    def __init__(
        self,
        loop: Loop,
        timeline: "Timeline",
        rate: float,
        say: Callable[[str], None],
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """`rate`: ticks a second of the world."""
        self._loop, self._timeline, self._rate = loop, timeline, rate
        self._say, self._wake, self._now = say, wake, now
        self._preview = Preview(loop, timeline, say, wake)
        self._pause = NestedPause(loop)
        self._scrub = Scrub(loop, timeline, self._preview, self._pause, say, wake, now)
        self._strip = Strip()
        self._panel: TextPrompt | MomentList | None = None
        self._standing: Future[Any] | None = None
        self._later: Callable[[], None] | None = None
        self._typed: list[pygame.Event] | None = None  # what was typed before a panel was there to take it
        self._shown_until = 0.0
        self._going: Future[Any] | None = None
        self._functions: dict[str, Callable[[], None]] = {
            "scrub_back": lambda: self._scrub.press(-1),
            "scrub_forward": lambda: self._scrub.press(1),
            "undo_second": lambda: self._once_there(self._undo_second),
            "bookmark": lambda: self._open_once_there(self._ask_name),
            "branches": lambda: self._open_once_there(self._list_moments),
        }

    @property
    def patience(self) -> float | None:
        """Seconds until the next look, while something moves."""
        return REFRESH if self._scrub.active else None

    @property
    def looking(self) -> bool:
        """Whether another moment is looked at, or soon will be, than the one that is played."""
        return self._scrub.active or isinstance(self._panel, MomentList) or self._going is not None

    @property
    def picture(self) -> np.ndarray | None:
        """The frame `(H, W, 3)` of the moment that is looked at, if there is one."""
        return self._preview.picture if self.looking else None

    @property
    def seen(self) -> "Point | None":
        """The moment that `picture` shows."""
        return self._preview.point if self.picture is not None else None

    @property
    def point(self) -> "Point | None":
        """The moment that is looked for, or else the present one."""
        if self._scrub.active and self._scrub.point is not None:
            return self._scrub.point
        return self._panel.point if isinstance(self._panel, MomentList) else self._timeline.head

    def handle(self, event: pygame.Event, function: str) -> bool:
        """Takes an event, `function` being what its key calls. Returns whether nobody else is to have it."""
        if event.type == pygame.WINDOWFOCUSLOST:
            self._scrub.release_all()
        elif event.type == pygame.KEYUP and function in SCRUBS:
            self._scrub.release(SCRUBS[function])
        elif event.type == pygame.KEYDOWN and self._typed is not None and event.key not in PASSED_ON:
            self._typed.append(event)
            self._type()
            return True
        elif event.type == pygame.KEYDOWN and function in self._functions:
            self._functions[function]()
        return event.type == pygame.KEYDOWN and self._scrub.held and function in MOVING

    def update(self) -> bool:
        """Takes what has come. Returns whether there is anything else to be seen now."""
        changed = self._scrub.update()
        if self._standing is not None and self._standing.done():
            self._standing, changed = None, True
            self._panel = MomentList(self._timeline, self._rate, lambda p: self._go(self._loop.seek(p)))
            self._type()
        if isinstance(self._panel, MomentList):
            before = self._preview.point
            self._preview.look(self._panel.point)
            changed |= self._preview.point != before
        if self._going is not None and self._going.done():
            error = self._going.exception()
            if error is not None:
                self._say(str(error))
            self._going = None
            self._preview.forget()
            changed = True
        if self._later is not None and not self._busy:
            later, self._later = self._later, None
            later()
            changed = True
        if self._shown_until and self._now() > self._shown_until:
            self._shown_until, changed = 0.0, True
        return changed

    def draw(self, screen: pygame.Surface) -> int:
        """Draws what there is over the picture. Returns how far down other things may be drawn."""
        bottom, point = screen.get_height(), self.point
        if point is not None and (self.looking or self._shown_until or self._panel is not None):
            bottom = self._strip.draw(screen, self._timeline, point, self._rate).top
        if self._panel is not None:
            self._panel.draw(screen, bottom)
        return bottom

    @property
    def _busy(self) -> bool:
        """Whether the session is still on its way, or something else has the keys."""
        on_way = self._scrub.active or self._going is not None
        return on_way or self._standing is not None or self._panel is not None

    def _once_there(self, what: Callable[[], None]) -> None:
        """Does something with the present moment, as soon as the session has arrived there."""
        if not self._scrub.held:
            self._later = what

    def _open_once_there(self, show: Callable[[], None]) -> None:
        """The same with a panel, which takes all that is typed from now on."""
        if not self._scrub.held:
            self._later, self._typed = show, []

    def _type(self) -> None:
        """Hands the panel what was typed, if it is there."""
        while self._panel is not None and self._typed:
            self._panel.press(self._typed.pop(0))
            if self._panel.done:
                self._close()

    def _undo_second(self) -> None:
        self._go(self._loop.rewind(max(1, round(self._rate))))

    def _ask_name(self) -> None:
        self._pause.begin()
        self._panel = TextPrompt("name of the bookmark", self._bookmark)
        self._type()

    def _bookmark(self, name: str) -> None:
        try:
            mark = self._timeline.bookmark(name)
        except PlayheadError as error:
            self._say(str(error))
        else:
            self._shown_until = self._now() + SHOWN
            self._say(f"bookmark: {mark.name}")

    def _list_moments(self) -> None:
        """The list comes once the world stands still, so that it knows where."""
        if self._timeline.head is None:
            self._typed = None
            return
        self._pause.begin()
        self._standing = self._loop.ask(lambda session: None)
        self._standing.add_done_callback(lambda _: self._wake())

    def _go(self, going: "Future[Any]") -> None:
        self._going, self._shown_until = going, self._now() + SHOWN
        going.add_done_callback(lambda _: self._wake())

    def _close(self) -> None:
        self._panel = self._typed = None
        if self._going is None:
            self._preview.forget()
        self._pause.end()
