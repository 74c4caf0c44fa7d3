"""What the window shows: the picture and what is drawn over it, as soon as any of it is new."""

import time
from pathlib import Path

import numpy as np
import pygame

from playhead.controls.keymap import Keymap
from playhead.engine.stats import Stats
from playhead.engine.tick import Tick
from playhead.render.window.hud import draw_hud, draw_note, draw_state
from playhead.render.window.pacer import Pacer
from playhead.render.window.played import PlayedSession
from playhead.render.window.scaling import draw_picture
from playhead.render.window.screens import draw_help, draw_loading
from playhead.render.window.settings import WindowSettings
from playhead.render.window.window import Window, save_screenshot, wake
from playhead.world.errors import PlayheadError

REFRESH = 0.25
"""Seconds between two looks at what changes without an event: figures, notes, the loop's end."""
NOTE_SECONDS = 4.0


class View:
    """Draws a play into its window. `say`, `progress` and `refresh` may be called by any thread: each is a
    single assignment that the window's thread looks at. All else is that thread's.
    """

    def __init__(self, window: Window, keymap: Keymap, settings: WindowSettings) -> None:
        self._window, self._keymap = window, keymap
        self._screenshots: Path = settings.screenshots
        self._pacer = Pacer()
        self._tick: Tick | None = None
        self._frame: np.ndarray | None = None
        self._drawn: Stats | None = None
        self._stage = ("opening", 0.0)
        self._note = ("", 0.0)
        self._stale = True
        self._hud, self._help = settings.hud, False
        self._screenshot_wanted = False

    @property
    def begun(self) -> bool:
        """Whether there was a tick to show."""
        return self._tick is not None

    def refresh(self) -> None:
        """Has everything drawn anew at the next look."""
        self._stale = True

    def say(self, note: str) -> None:
        """Shows a note for a while."""
        self._note = (note, time.perf_counter() + NOTE_SECONDS)
        self._stale = True

    def progress(self, stage: str, part: float) -> None:
        """Shows that a stage of an opening begins, of which `part` (0 to 1) is done."""
        if self._tick is None:
            self._stage = (stage, part)
        else:
            self.say(stage)
        wake()

    def toggle_hud(self) -> None:
        self._hud = not self._hud

    def toggle_help(self) -> None:
        self._help = not self._help

    def save_next(self) -> None:
        """Has what is drawn next saved as a screenshot."""
        self._screenshot_wanted = True

    def show(self, tick: Tick, now: float) -> None:
        """Shows a tick's frames from now on."""
        self._pacer.put(tick.frames, now, tick.timing.period)
        self._tick = tick

    def patience(self, played: PlayedSession) -> float:
        """Seconds that may be slept through if no event comes."""
        waits = [REFRESH, self._pacer.wait(time.perf_counter())]
        waits.append(played.moments.patience if played.moments is not None else None)
        return min(wait for wait in waits if wait is not None)

    def update(self, played: PlayedSession, now: float) -> None:
        """Draws if anything is new."""
        frame = self._pacer.take(now)
        if frame is not None:
            self._frame = frame
        if self._note[0] and now > self._note[1]:
            self._note = ("", 0.0)
            self._stale = True
        if self._stale or frame is not None or played.loop.stats is not self._drawn:
            self.draw(played)

    def draw(self, played: PlayedSession) -> None:
        """Draws everything."""
        screen, stats, moments = self._window.screen, played.loop.stats, played.moments
        self._stale, self._drawn = False, stats
        below = screen.get_height()
        if self._frame is None or stats is None:
            draw_loading(screen, *self._stage)
        else:
            there = moments.picture if moments is not None else None
            draw_picture(screen, self._frame if there is None else there)
            if not self._help:
                self._draw_figures(screen, played, stats)
                if moments is not None:
                    below = moments.draw(screen)
            if self._screenshot_wanted:
                self._save_screenshot(screen, played)
        if self._help:
            draw_help(screen, self._keymap)
        elif self._note[0]:
            draw_note(screen, self._note[0], below)
        self._window.show()

    def _draw_figures(self, screen: pygame.Surface, played: PlayedSession, stats: Stats) -> None:
        if self._hud and not (played.moments is not None and played.moments.looking):
            draw_hud(screen, stats, played.title, _recorded(played))
        timeline = played.loop.timeline
        failure = timeline.failure if timeline is not None else ""
        draw_state(screen, stats, warn=self._hud, failure=failure, control=played.sharing.said)

    def _save_screenshot(self, screen: pygame.Surface, played: PlayedSession) -> None:
        """Saves what is seen, notes and help aside."""
        self._screenshot_wanted = False
        number = self._tick.number if self._tick else 0
        if played.moments is not None and played.moments.seen is not None:
            number = played.moments.seen.tick
        name = f"playhead-{played.scene_name or 'scene'}-{number:06d}"
        try:
            self.say(f"saved {save_screenshot(screen, self._screenshots, name)}")
        except PlayheadError as error:
            self.say(str(error))


def _recorded(played: PlayedSession) -> str:
    """What the HUD says of the recording."""
    timeline = played.loop.timeline
    if timeline is None:
        return ""  # what is played elsewhere is recorded there
    if timeline.failure:
        return "stopped"
    if timeline.recorder is None:
        return "off"
    head, count = timeline.head, len(timeline.branches)
    return f"branch {head.branch} of {count}" if head is not None else "on"
