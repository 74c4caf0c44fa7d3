"""Playing in a window: puts together what is played, what is shown and what the keys do, and runs it."""

import time
from typing import TYPE_CHECKING

from playhead.controls.keymap import Keymap, find_keymap, load_keymap
from playhead.controls.player import Player
from playhead.engine.bridge.client.remote_session import RemoteSession
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.clock import check_speed
from playhead.engine.mailbox import Mailbox
from playhead.engine.tick import Tick
from playhead.render.window.events import EventHandler
from playhead.render.window.local import LocalPlay
from playhead.render.window.local_opener import family_of, keymap_world
from playhead.render.window.remote import RemotePlay, connect
from playhead.render.window.settings import PlaySettings
from playhead.render.window.view import View
from playhead.render.window.window import Window, wake

if TYPE_CHECKING:
    from playhead.engine.timeline.timeline import Timeline


def play(settings: PlaySettings) -> "Timeline | None":
    """Opens a window and plays in it until it is closed. Returns what was played, if anything was.

    Raises PlayheadError for whatever prevents that.
    """
    check_speed(settings.pace.speed)
    bridge = settings.bridge
    shared = (
        SharedPlay(bridge.address, bridge.secret_key, bridge.clients, settings.recording.folder)
        if bridge is not None
        else None
    )
    remote: RemoteSession | None = None
    window = Window(ASPECT, settings.window.fullscreen)
    try:
        if settings.server is not None:
            remote = connect(window, settings.server, settings.session, settings.pace)
            if remote is None:
                return None
            world, family = remote.opened.world.name, remote.opened.world.family
        else:
            world = keymap_world(settings.session)
            family = family_of(world)
        path = settings.window.keymap
        keymap = load_keymap(path) if path else find_keymap(world, family)
        played = Play(window, settings, keymap, remote, shared)
        played.run()
        return played.timeline
    finally:
        window.close()
        if remote is not None:
            remote.close()
        if shared is not None:
            shared.close()


ASPECT = (256, 160)
"""The picture that the window opens for, before the world is known: width and height."""


class Play:
    """One play, from the start-up's first stage to the end. Lives on the window's thread.

    Other threads reach it in two ways only: ticks through the mailbox, everything else through the `View`.
    """

    def __init__(
        self,
        window: Window,
        settings: PlaySettings,
        keymap: Keymap,
        remote: RemoteSession | None = None,
        shared: SharedPlay | None = None,
    ) -> None:
        """A `remote` session is played, or one that is opened here; what is `shared`, programs play too."""
        self._window, self._keymap = window, keymap
        self._player = player = Player(keymap)
        self._view = view = View(window, keymap, settings.window)
        self._played: LocalPlay | RemotePlay
        if remote is None:
            self._played = LocalPlay(settings, keymap, player, shared, view)
        else:
            self._played = RemotePlay(remote, settings.session, settings.pace, keymap, player, view)
        self._loop = self._played.loop
        self._mailbox: Mailbox[Tick] = Mailbox()
        self._loop.subscribe(self._receive)
        self._events = EventHandler(window, keymap, player, self._played, view)
        self._failure = ""

    def run(self) -> None:
        """Plays until the window is closed or the loop ends. Raises the loop's error, if it had one."""
        self._view.draw(self._played)
        self._loop.start()
        try:
            if self._player.wants_mouse:
                self._window.capture_mouse()
            while self._loop.alive and not self._events.quitting:
                for event in self._window.events(self._view.patience(self._played)):
                    self._events.handle(event)
                self._update()
            self._update()
        finally:
            self._loop.stop()
            self._window.close()
            try:
                self._loop.join()
            finally:
                if self.timeline is not None:
                    self.timeline.close()

    @property
    def timeline(self) -> "Timeline | None":
        """What was played; None before it has begun."""
        return self._loop.timeline

    def _receive(self, tick: Tick) -> None:
        """On the loop's thread: leaves a tick for the window."""
        if self._mailbox.put(tick):
            wake()

    def _update(self) -> None:
        """Takes what is new, and draws if anything is."""
        now, view, timeline = time.perf_counter(), self._view, self.timeline
        tick = self._mailbox.take()
        if tick is not None:
            if tick.action is None:
                self._announce(tick)
            view.show(tick, now)
        if self._played.update():
            view.refresh()
        failure = timeline.failure if timeline is not None else ""
        if failure != self._failure:
            self._failure = failure
            if failure:
                view.say(failure)
        view.update(self._played, now)

    def _announce(self, tick: Tick) -> None:
        """Says what begins, and the first time also where help is to be had."""
        first = not self._view.begun
        if self._played.enter(tick) and tick.number and not first:
            assert tick.point is not None  # it is one of the timeline's
            self._view.say(f"tick {tick.number} of branch {tick.point.branch}")
            return
        keys = self._keymap.window.get("help")
        more = f"{keys[0]} shows the keys" if first and keys else f"seed {tick.seed}"
        self._view.say(self._played.take_remark() or f"{self._played.title}  ·  {more}")
