"""Playing in a window: the window's thread shows what the loop hands over and passes on what is pressed."""

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pygame

from playhead.controls.keymap import Keymap, find_keymap, load_keymap
from playhead.controls.player import Player
from playhead.engine.bridge.client.remote_loop import RemoteLoop
from playhead.engine.bridge.client.remote_session import RemoteSession
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.clock import check_speed
from playhead.engine.loop import Loop
from playhead.engine.mailbox import Mailbox
from playhead.engine.playing import Playing
from playhead.engine.stats import Stats
from playhead.engine.tick import Tick
from playhead.render.window.hud import draw_hud, draw_note, draw_state
from playhead.render.window.moments import Moments
from playhead.render.window.opening import Opening, family_of, keymap_world
from playhead.render.window.pacer import Pacer
from playhead.render.window.picture import draw_picture
from playhead.render.window.prompts import prompt_note
from playhead.render.window.remote import RemoteOpening, RemoteSharing, dial_in, script_of
from playhead.render.window.screens import draw_help, draw_loading
from playhead.render.window.settings import PlaySettings
from playhead.render.window.sharing import Sharing
from playhead.render.window.window import WAKE, Window, save_screenshot, wake
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from playhead.engine.session import Session
    from playhead.engine.timeline.timeline import Timeline

ASPECT = (256, 160)
"""The picture that the window opens for, before the world is known: width and height."""
REFRESH = 0.25
"""Seconds between two looks at what changes without an event: figures, notes, the loop's end."""
NOTE_SECONDS = 4.0
MAX_NEW_SEED = 1_000_000
"""A new seed is small enough to be remembered and typed."""


def play(settings: PlaySettings) -> "Timeline | None":
    """Opens a window and plays in it until it is closed. Returns what was played, if anything was.

    Raises PlayheadError for whatever prevents that.
    """
    check_speed(settings.speed)
    bridge = settings.bridge
    shared = (
        SharedPlay(bridge, settings.key, settings.clients, settings.recordings)
        if bridge is not None
        else None
    )
    line: RemoteSession | None = None
    window = Window(ASPECT, settings.fullscreen)
    try:
        if settings.connect is not None:
            line = dial_in(window, settings)
            if line is None:
                return None
            world, family = line.opened.world.name, line.opened.world.family
        else:
            world = keymap_world(settings)
            family = family_of(world)
        keymap = load_keymap(settings.keys) if settings.keys else find_keymap(world, family)
        played = Play(window, settings, keymap, line, shared)
        played.run()
        return played.timeline
    finally:
        window.close()
        if line is not None:
            line.close()
        if shared is not None:
            shared.close()


class Play:
    """One play, from the start-up's first stage to the end. Lives on the window's thread.

    The loop's thread reaches it in three ways only: ticks through the mailbox, remarks and stages of the
    opening by a single assignment each.
    """

    def __init__(
        self,
        window: Window,
        settings: PlaySettings,
        keymap: Keymap,
        line: RemoteSession | None = None,
        shared: SharedPlay | None = None,
    ) -> None:
        """With a `line`, the session at its other end is played; what is `shared`, programs play too."""
        self._window, self._settings, self._keymap = window, settings, keymap
        self._shared = shared
        self._sharing: Sharing | RemoteSharing = Sharing(shared, keymap)
        self._player = Player(keymap)
        self._opening: Opening | RemoteOpening
        self._loop: Playing
        self._opening, self._loop = self._here() if line is None else self._there(line)
        loop = self._loop
        self._mailbox: Mailbox[Tick] = Mailbox()
        loop.subscribe(self._receive)
        if settings.watched is not None:
            loop.subscribe(self._end_watching)
        self._pacer = Pacer()
        self._tick: Tick | None = None
        self._frame: np.ndarray | None = None
        self._drawn: Stats | None = None
        self._stage = ("opening", 0.0)
        self._note = ("", 0.0)
        self._failure = ""
        self._moments: Moments | None = None
        self._stale = True
        self._hud, self._help = settings.hud, False
        self._quitting = self._screenshot_wanted = False
        self._functions: dict[str, Callable[[], None]] = {
            "pause": loop.toggle_pause,
            "single_step": loop.single_step,
            "slower": lambda: loop.change_speed(0.5),
            "faster": lambda: loop.change_speed(2),
            "restart": loop.restart,
            "new_seed": lambda: loop.restart(secrets.randbelow(MAX_NEW_SEED)),
            "next_scene": lambda: self._switch(1),
            "previous_scene": lambda: self._switch(-1),
            "more_steps": lambda: loop.change_steps(1),
            "fewer_steps": lambda: loop.change_steps(-1),
            "auto_steps": loop.toggle_auto_steps,
            "hold": loop.toggle_hold,
            "control": self._hand_over,
            "hud": self._toggle_hud,
            "help": self._toggle_help,
            "fullscreen": window.toggle_fullscreen,
            "screenshot": self._want_screenshot,
            "quit": self._quit,
        }

    def _here(self) -> tuple[Opening, Loop]:
        """What is played in this process."""
        settings = self._settings
        opening = Opening(settings, self._keymap, self._player, self._progress)
        shared = self._shared
        loop = Loop(
            self._open,
            self._player if shared is None else shared.source(self._player),
            key_time=lambda: None if shared and shared.control.holder else self._player.key_time,
            speed=settings.speed,
            auto_steps=settings.auto_steps,
            hold=settings.hold,
            last=settings.ticks,
            complain=self._say,
        )
        return opening, loop

    def _there(self, line: RemoteSession) -> tuple[RemoteOpening, RemoteLoop]:
        """What is played at the other end of a line."""
        self._keymap.check(line.opened.world.buttons, line.opened.world.axes)
        loop = RemoteLoop(
            line,
            self._player,
            key_time=lambda: self._player.key_time,
            script=script_of(self._settings, line, self._keymap.aliases),
            last=self._settings.ticks,
            complain=self._say,
        )
        self._sharing = RemoteSharing(loop, self._keymap)
        self._player.fed = loop.poke
        self._player.sample_often(1 / line.opened.world.ticks_per_second)
        return RemoteOpening(line), loop

    def run(self) -> None:
        """Plays until the window is closed or the loop ends. Raises the loop's error, if it had one."""
        self._draw()
        self._loop.start()
        try:
            if self._player.wants_mouse:
                self._window.keep_mouse()
            while self._loop.alive and not self._quitting:
                for event in self._window.events(self._patience()):
                    self._handle(event)
                self._update()
            self._update()
        finally:
            self._loop.stop()
            self._window.close()
            try:
                self._loop.join()
            finally:
                if self._loop.timeline is not None:
                    self._loop.timeline.close()

    @property
    def timeline(self) -> "Timeline | None":
        """What was played; None before it has begun."""
        return self._loop.timeline

    def _end_watching(self, tick: Tick) -> None:
        """On the loop's thread: ends with the last tick that was to be watched."""
        if self._player.script is not None and self._player.script.done:
            self._loop.stop()

    def _open(self) -> "Session":
        """On the loop's thread: opens what is to be played, and where it is recorded."""
        opening, loop = self._opening_here(), self._loop
        assert isinstance(loop, Loop)
        session = opening.first()
        loop.timeline = opening.timeline
        if self._shared is not None:
            assert opening.scene is not None  # the first session's
            scene = opening.scene
            self._shared.told = self._note_control
            self._shared.serve(loop, lambda: opening.scene or scene)
            print(f"bridge at {self._shared.address}", flush=True)
        return session

    def _switch(self, by: int) -> None:
        """Goes on in the scene that comes `by` after the present one."""
        if isinstance(self._loop, Loop):
            self._loop.switch(lambda: self._opening_here().neighbour(by))
        elif isinstance(self._loop, RemoteLoop):
            self._loop.switch(lambda: self._opening_there().neighbour(by))

    def _opening_here(self) -> Opening:
        assert isinstance(self._opening, Opening)
        return self._opening

    def _opening_there(self) -> RemoteOpening:
        assert isinstance(self._opening, RemoteOpening)
        return self._opening

    def _note_control(self) -> None:
        """On the bridge's thread: who plays, or asks to, has changed."""
        self._stale = True
        wake()

    def _hand_over(self) -> None:
        said = self._sharing.hand_over()
        if said:
            self._say(said)

    def _receive(self, tick: Tick) -> None:
        """On the loop's thread: leaves a tick for the window."""
        if self._mailbox.put(tick):
            wake()

    def _progress(self, stage: str, part: float) -> None:
        """On the loop's thread: a stage of the opening begins."""
        if self._tick is None:
            self._stage = (stage, part)
        else:
            self._say(stage)
        wake()

    def _say(self, note: str) -> None:
        """On any thread: shows a note for a while."""
        self._note = (note, time.perf_counter() + NOTE_SECONDS)
        self._stale = True

    def _patience(self) -> float:
        """Seconds that may be slept through if no event comes."""
        waits = [REFRESH, self._pacer.wait(time.perf_counter())]
        waits.append(self._moments.patience if self._moments is not None else None)
        return min(wait for wait in waits if wait is not None)

    def _handle(self, event: pygame.Event) -> None:
        is_key = event.type in (pygame.KEYDOWN, pygame.KEYUP)
        function = self._keymap.function_of_key.get(event.key, "") if is_key else ""
        self._stale |= is_key and bool(function)
        refusal = self._sharing.refusal(function)
        if refusal:
            self._say(refusal)
            return
        if self._moments is not None and self._moments.handle(event, function):
            self._stale = True
            return
        if event.type in (pygame.QUIT, pygame.WINDOWCLOSE):
            self._quit()
        elif event.type == pygame.KEYDOWN and function in self._functions:
            self._functions[function]()
        elif event.type == pygame.KEYDOWN and function and self._moments is None:
            self._say("there is no way back here" if self._tick is not None else "nothing was played yet")
        elif event.type == pygame.KEYDOWN:
            self._tell_prompt(event.key)
        elif event.type in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED, WAKE):
            self._stale = True
        self._player.feed(event)

    def _tell_prompt(self, key: int) -> None:
        """Says which prompt a key asks for; of a scene elsewhere none is known here."""
        opening = self._opening
        if isinstance(opening, Opening) and opening.scene is not None:
            note = prompt_note(self._keymap, key, opening.scene)
            if note:
                self._say(note)

    def _update(self) -> None:
        """Takes what is new, and draws if anything is."""
        now = time.perf_counter()
        tick = self._mailbox.take()
        if tick is not None:
            self._pacer.put(tick.frames, now, tick.timing.period)
            if tick.action is None:
                self._announce(tick)
            self._tick = tick
        loop, timeline = self._loop, self._loop.timeline
        if (
            self._moments is None and timeline is not None
            and isinstance(loop, Loop) and loop.world is not None
        ):  # fmt: skip
            rate = loop.world.config.ticks_per_second
            self._moments = Moments(loop, timeline, rate, self._say, wake, time.perf_counter)
        if self._moments is not None and self._moments.update():
            self._stale = True
        failure = timeline.failure if timeline is not None else ""
        if failure != self._failure:
            self._failure = failure
            if failure:
                self._say(failure)
        frame = self._pacer.take(now)
        if frame is not None:
            self._frame = frame
        if self._note[0] and now > self._note[1]:
            self._note = ("", 0.0)
            self._stale = True
        if self._stale or frame is not None or self._loop.stats is not self._drawn:
            self._draw()

    def _announce(self, tick: Tick) -> None:
        """Says what begins, and the first time also where help is to be had."""
        timeline = self._loop.timeline
        if timeline is not None and tick.place is not None and isinstance(self._opening, Opening):
            self._opening.scene = timeline.scene(tick.place)
            if tick.number and self._tick is not None:
                self._say(f"tick {tick.number} of branch {tick.place.branch}")
                return
        keys = self._keymap.window.get("help")
        more = f"{keys[0]} shows the keys" if self._tick is None and keys else f"seed {tick.seed}"
        remark, self._opening.remark = self._opening.remark, ""
        self._say(remark or f"{self._opening.title}  ·  {more}")

    def _draw(self) -> None:
        screen, stats = self._window.screen, self._loop.stats
        self._stale, self._drawn = False, stats
        below = screen.get_height()
        if self._frame is None or stats is None:
            draw_loading(screen, *self._stage)
        else:
            moments = self._moments
            there = moments.picture if moments is not None else None
            draw_picture(screen, self._frame if there is None else there)
            if not self._help:
                self._draw_figures(screen, stats)
                if moments is not None:
                    below = moments.draw(screen)
            if self._screenshot_wanted:
                self._save_screenshot(screen)
        if self._help:
            draw_help(screen, self._keymap)
        elif self._note[0]:
            draw_note(screen, self._note[0], below)
        self._window.show()

    def _draw_figures(self, screen: pygame.Surface, stats: Stats) -> None:
        if self._hud and not (self._moments is not None and self._moments.looking):
            draw_hud(screen, stats, self._opening.title, self._recorded)
        said = self._sharing.said
        draw_state(screen, stats, warn=self._hud, failure=self._failure, control=said)

    @property
    def _recorded(self) -> str:
        """What the HUD says of the recording."""
        timeline = self._loop.timeline
        if timeline is None:
            return ""  # what is played elsewhere is recorded there
        if timeline.failure:
            return "stopped"
        if timeline.recorder is None:
            return "off"
        head, count = timeline.head, len(timeline.branches)
        return f"branch {head.branch} of {count}" if head is not None else "on"

    def _save_screenshot(self, screen: pygame.Surface) -> None:
        """Saves what is seen, notes and help aside."""
        self._screenshot_wanted = False
        scene, number = self._opening.scene, self._tick.number if self._tick else 0
        if self._moments is not None and self._moments.seen is not None:
            number = self._moments.seen.tick
        name = f"playhead-{scene.name if scene and scene.name else 'scene'}-{number:06d}"
        try:
            self._say(f"saved {save_screenshot(screen, self._settings.screenshots, name)}")
        except PlayheadError as error:
            self._say(str(error))

    def _want_screenshot(self) -> None:
        self._screenshot_wanted = True

    def _toggle_hud(self) -> None:
        self._hud = not self._hud

    def _toggle_help(self) -> None:
        self._help = not self._help

    def _quit(self) -> None:
        self._quitting = True
