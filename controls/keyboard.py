"""The keyboard: key events into what is held. Buttons alone; keys that push an axis are `look`'s."""

import pygame

from playhead.controls.held import Held
from playhead.controls.keymap import Keymap


class Keyboard:
    """Turns key events into what is held. Key repeat changes nothing: the key is down already."""

    def __init__(self, keymap: Keymap, held: Held) -> None:
        self._buttons, self._held = keymap.held_by_key, held

    def feed(self, event: pygame.Event) -> None:
        if event.type == pygame.KEYDOWN and event.key in self._buttons:
            self._held.press(event.key, self._buttons[event.key])
        elif event.type == pygame.KEYUP:
            self._held.release(event.key)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._held.release_all()
