"""The player's devices: what pygame's events of keyboard and gamepad hold."""

import pygame
import pytest
from pygame import Event

from playhead.controls.keymap import find_keymap
from playhead.controls.player import Player
from playhead.controls.script import ScriptSource
from playhead.world.action import Action


@pytest.fixture
def player() -> Player:
    return Player(find_keymap("freedoom"))


def held(player: Player) -> set[str]:
    return set(player.sample().buttons)


def key(kind: int, name: str) -> Event:
    return Event(kind, key=pygame.key.key_code(name))


def test_keys_hold_the_buttons_of_the_key_map(player):
    for name in ("w", "right", "space"):
        player.feed(key(pygame.KEYDOWN, name))
    assert held(player) == {"forward", "turn_right", "attack"}
    player.feed(key(pygame.KEYUP, "right"))
    assert held(player) == {"forward", "attack"}


def test_keys_that_hold_nothing_do_nothing(player):
    for name in ("p", "escape", "f5"):
        player.feed(key(pygame.KEYDOWN, name))
        player.feed(key(pygame.KEYUP, name))
    assert held(player) == set()
    assert player.key_time is None


def test_losing_the_focus_releases_all_keys(player):
    player.feed(key(pygame.KEYDOWN, "w"))
    held(player)
    player.feed(Event(pygame.WINDOWFOCUSLOST))
    assert held(player) == set()


def test_a_gamepad_holds_by_buttons_and_sticks(player):
    def axis(axis: int, value: float) -> Event:
        return Event(pygame.CONTROLLERAXISMOTION, instance_id=3, axis=axis, value=round(value * 32767))

    player.feed(Event(pygame.CONTROLLERBUTTONDOWN, instance_id=3, button=pygame.CONTROLLER_BUTTON_DPAD_UP))
    player.feed(axis(pygame.CONTROLLER_AXIS_RIGHTX, 0.9))
    player.feed(axis(pygame.CONTROLLER_AXIS_LEFTX, -0.2))
    assert held(player) == {"forward", "turn_right"}
    player.feed(axis(pygame.CONTROLLER_AXIS_RIGHTX, 0.45))  # between the thresholds: still held
    assert held(player) == {"forward", "turn_right"}
    player.feed(axis(pygame.CONTROLLER_AXIS_RIGHTX, -0.8))
    player.feed(Event(pygame.CONTROLLERBUTTONUP, instance_id=3, button=pygame.CONTROLLER_BUTTON_DPAD_UP))
    assert held(player) == {"turn_left"}


def test_a_gamepad_that_is_unplugged_holds_nothing(player):
    button = pygame.CONTROLLER_BUTTON_A
    player.feed(Event(pygame.CONTROLLERBUTTONDOWN, instance_id=3, button=button))
    player.feed(Event(pygame.CONTROLLERBUTTONDOWN, instance_id=4, button=button))
    held(player)
    player.feed(Event(pygame.CONTROLLERDEVICEREMOVED, instance_id=3))
    assert held(player) == {"attack"}
    player.feed(Event(pygame.CONTROLLERDEVICEREMOVED, instance_id=4))
    assert held(player) == set()


def test_a_gamepad_that_is_gone_before_it_is_opened_is_no_error(player):
    player.feed(Event(pygame.CONTROLLERDEVICEADDED, device_index=7))
    assert held(player) == set()


def test_keyboard_and_gamepad_play_together(player):
    player.feed(key(pygame.KEYDOWN, "w"))
    player.feed(Event(pygame.CONTROLLERBUTTONDOWN, instance_id=0, button=pygame.CONTROLLER_BUTTON_X))
    assert held(player) == {"forward", "use"}


def test_a_script_comes_first_and_then_the_keys(player):
    player.script = ScriptSource([Action(frozenset({"back"}))] * 2)
    player.feed(key(pygame.KEYDOWN, "w"))
    assert [held(player) for _ in range(3)] == [{"back"}, {"back"}, {"forward"}]
