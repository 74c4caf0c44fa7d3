"""Playing a session that is opened here, and what a window has to know of it."""

import time
from typing import TYPE_CHECKING

from playhead.controls.keymap import Keymap
from playhead.controls.player import Player
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.loop import Loop
from playhead.engine.tick import Tick
from playhead.render.window.local_opener import LocalOpener
from playhead.render.window.prompts import prompt_note
from playhead.render.window.settings import PlaySettings
from playhead.render.window.sharing import Sharing
from playhead.render.window.timeline_controls import TimelineControls
from playhead.render.window.view import View
from playhead.render.window.window import wake

if TYPE_CHECKING:
    from playhead.engine.session import Session


class LocalPlay:
    """A session of this process, its loop and the way back in its timeline: a `PlayedSession`."""

    def __init__(
        self, settings: PlaySettings, keymap: Keymap, player: Player, shared: SharedPlay | None, view: View
    ) -> None:
        """What is `shared`, programs play too."""
        self._keymap, self._player, self._shared, self._view = keymap, player, shared, view
        self._opener = LocalOpener(settings.session, settings.recording, keymap, player, view.progress)
        self.sharing = Sharing(shared, keymap)
        self.moments: TimelineControls | None = None
        pace = settings.pace
        self.loop = Loop(
            self._open,
            player if shared is None else shared.source(player),
            key_time=lambda: None if shared and shared.control.holder else player.key_time,
            speed=pace.speed,
            auto_steps=pace.auto_steps,
            hold=pace.hold,
            last=pace.ticks,
            complain=view.say,
        )
        if settings.session.replayed is not None:
            self.loop.subscribe(self._end_replay)

    @property
    def title(self) -> str:
        return self._opener.title

    @property
    def scene_name(self) -> str:
        scene = self._opener.scene
        return scene.name if scene is not None else ""

    def take_remark(self) -> str:
        remark, self._opener.remark = self._opener.remark, ""
        return remark

    def enter(self, tick: Tick) -> bool:
        timeline = self.loop.timeline
        if timeline is None or tick.point is None:
            return False
        self._opener.scene = timeline.scene(tick.point)
        return True

    def update(self) -> bool:
        loop = self.loop
        if self.moments is None and loop.timeline is not None and loop.world is not None:
            rate = loop.world.config.ticks_per_second
            self.moments = TimelineControls(
                loop, loop.timeline, rate, self._view.say, wake, time.perf_counter
            )
        return self.moments is not None and self.moments.update()

    def switch(self, by: int) -> None:
        self.loop.switch(lambda: self._opener.neighbour(by))

    def prompt_note(self, key: int) -> str:
        scene = self._opener.scene
        return prompt_note(self._keymap, key, scene) if scene is not None else ""

    def _open(self) -> "Session":
        """On the loop's thread: opens what is to be played, and where it is recorded."""
        opener = self._opener
        session = opener.first()
        self.loop.timeline = opener.timeline
        if self._shared is not None:
            assert opener.scene is not None  # the first session's
            scene = opener.scene
            self._shared.told = self._note_control
            self._shared.serve(self.loop, lambda: opener.scene or scene)
            print(f"bridge at {self._shared.address}", flush=True)
        return session

    def _end_replay(self, tick: Tick) -> None:
        """On the loop's thread: ends with the last tick that was to be played again."""
        if self._player.script is not None and self._player.script.done:
            self.loop.stop()

    def _note_control(self) -> None:
        """On the bridge's thread: who plays, or asks to, has changed."""
        self._view.refresh()
        wake()
