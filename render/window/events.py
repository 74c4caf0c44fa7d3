"""What the window's events do: keys call its functions, and what holds a button goes to the player."""

import secrets
from collections.abc import Callable

import pygame

from playhead.controls.keymap import Keymap
from playhead.controls.player import Player
from playhead.render.window.played import PlayedSession
from playhead.render.window.view import View
from playhead.render.window.window import WAKE, Window

MAX_NEW_SEED = 1_000_000
"""A new seed is small enough to be remembered and typed."""


class EventHandler:
    """Hands events to whom they concern. `quitting`: the window is to be closed."""

    def __init__(
        self, window: Window, keymap: Keymap, player: Player, played: PlayedSession, view: View
    ) -> None:
        self._keymap, self._player, self._played, self._view = keymap, player, played, view
        self.quitting = False
        loop = played.loop
        self._functions: dict[str, Callable[[], None]] = {
            "pause": loop.toggle_pause,
            "single_step": loop.single_step,
            "slower": lambda: loop.change_speed(0.5),
            "faster": lambda: loop.change_speed(2),
            "restart": loop.restart,
            "new_seed": lambda: loop.restart(secrets.randbelow(MAX_NEW_SEED)),
            "next_scene": lambda: played.switch(1),
            "previous_scene": lambda: played.switch(-1),
            "more_steps": lambda: loop.change_steps(1),
            "fewer_steps": lambda: loop.change_steps(-1),
            "auto_steps": loop.toggle_auto_steps,
            "hold": loop.toggle_hold,
            "control": self._hand_over,
            "hud": view.toggle_hud,
            "help": view.toggle_help,
            "fullscreen": window.toggle_fullscreen,
            "screenshot": view.save_next,
            "quit": self._quit,
        }

    def handle(self, event: pygame.Event) -> None:
        """Has an event do what it is there for."""
        view, moments = self._view, self._played.moments
        is_key = event.type in (pygame.KEYDOWN, pygame.KEYUP)
        function = self._keymap.function_of_key.get(event.key, "") if is_key else ""
        if function:
            view.refresh()
        refusal = self._played.sharing.refusal(function)
        if refusal:
            view.say(refusal)
            return
        if moments is not None and moments.handle(event, function):
            view.refresh()
            return
        if event.type in (pygame.QUIT, pygame.WINDOWCLOSE):
            self._quit()
        elif event.type == pygame.KEYDOWN and function in self._functions:
            self._functions[function]()
        elif event.type == pygame.KEYDOWN and function and moments is None:
            view.say("there is no way back here" if view.begun else "nothing was played yet")
        elif event.type == pygame.KEYDOWN:
            if note := self._played.prompt_note(event.key):
                view.say(note)
        elif event.type in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED, WAKE):
            view.refresh()
        self._player.feed(event)

    def _hand_over(self) -> None:
        if said := self._played.sharing.hand_over():
            self._view.say(said)

    def _quit(self) -> None:
        self.quitting = True
