"""The player at this machine: keyboard and gamepads, after a script if there is one."""

from collections.abc import Callable
from typing import Protocol

import pygame

from playhead.controls.gamepad import Gamepads
from playhead.controls.held import Held
from playhead.controls.keyboard import Keyboard
from playhead.controls.keymap import Keymap
from playhead.controls.look import Look
from playhead.world.action import Action


class Script(Protocol):
    """What plays before the keys count: a script, or a recording."""

    @property
    def done(self) -> bool: ...

    def sample(self) -> Action: ...


class Player:
    """A source of actions that the window feeds with its events. Needs pygame's video to be initialised.

    `key_time` is when the newest event that the last sample obeys happened, None if there was none; `source`
    is who it came from. `fed` is called whenever what is held may have changed.
    """

    def __init__(self, keymap: Keymap) -> None:
        self._held = Held()
        self._look = Look(keymap)
        self._devices = (Keyboard(keymap, self._held), Gamepads(keymap, self._held), self._look)
        self.script: Script | None = None
        self.key_time: float | None = None
        self.source = "keyboard"
        self.fed: Callable[[], None] = lambda: None

    @property
    def wants_mouse(self) -> bool:
        """Whether the mouse moves anything, so that the window had better keep it."""
        return self._look.wants_mouse

    def sample_often(self, tick: float) -> None:
        """Prepares for several samples in each tick of so many seconds, whose axes are added up."""
        self._look.tick = tick

    def feed(self, event: pygame.Event) -> None:
        """Takes in an event of the window."""
        for device in self._devices:
            device.feed(event)
        if event.type != pygame.MOUSEMOTION:  # that comes too often, and means nothing by itself
            self.fed()

    def sample(self) -> Action:
        """The script's next action; once that is done, what is held."""
        held, axes = self._held.sample(), self._look.sample()
        if self.script is not None and not self.script.done:
            self.key_time, self.source = None, getattr(self.script, "source", "script")
            return self.script.sample()
        self.key_time, self.source = self._held.changed_at, "keyboard"
        return held.plus(Action(axes=axes)) if axes else held
