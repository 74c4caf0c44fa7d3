"""Gamepads as a source of actions: any number, plugged in and out while playing; none is fine too."""

import contextlib

import pygame
from pygame._sdl2 import controller

from playhead.controls.gamepad_names import BUTTONS, STICKS
from playhead.controls.held import Held
from playhead.controls.keymap import Keymap

PRESSED, RELEASED = 0.5, 0.4
"""How far a stick or a trigger has to go to count as down, and how far back to count as up again."""
FULL = 32767


class Gamepads:
    """Turns the window's gamepad events into what is held. Needs pygame's video to be initialised."""

    def __init__(self, keymap: Keymap, held: Held) -> None:
        self._buttons, self._held = keymap.held_by_gamepad, held
        self._open: dict[int, controller.Controller] = {}
        controller.init()  # from now on every gamepad, those present included, comes as an event

    def feed(self, event: pygame.Event) -> None:
        if event.type == pygame.CONTROLLERDEVICEADDED:
            self._plug_in(event.device_index)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._open.pop(event.instance_id, None)
            for part in self._buttons:
                self._held.release((event.instance_id, part))
        elif event.type == pygame.CONTROLLERBUTTONDOWN:
            self._set(event.instance_id, BUTTONS.get(event.button, ""), True)
        elif event.type == pygame.CONTROLLERBUTTONUP:
            self._set(event.instance_id, BUTTONS.get(event.button, ""), False)
        elif event.type == pygame.CONTROLLERAXISMOTION and event.axis in STICKS:
            negative, positive = STICKS[event.axis]
            self._move(event.instance_id, negative, -event.value / FULL)
            self._move(event.instance_id, positive, event.value / FULL)

    def _plug_in(self, index: int) -> None:
        with contextlib.suppress(pygame.error):  # unplugged again before it could be opened
            gamepad = controller.Controller(index)
            self._open[gamepad.as_joystick().get_instance_id()] = gamepad

    def _move(self, gamepad: int, part: str, value: float) -> None:
        """`value`: 0 at rest, 1 at the end. Between the thresholds nothing changes, so nothing flutters."""
        if value >= PRESSED:
            self._set(gamepad, part, True)
        elif value < RELEASED:
            self._set(gamepad, part, False)

    def _set(self, gamepad: int, part: str, down: bool) -> None:
        if part not in self._buttons:
            return
        if down:
            self._held.press((gamepad, part), self._buttons[part])
        else:
            self._held.release((gamepad, part))
