"""Looking about: mouse motion and keys become axes, by what the key map says."""

from pathlib import Path

import pygame
import pytest

from playhead.controls.keymap import find_keymap, load_keymap
from playhead.controls.look import Look
from playhead.world.action import ActionSpace
from playhead.world.errors import ActionError
from playhead.world.public import PUBLIC


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def moved(x: int, y: int) -> pygame.Event:
    return pygame.Event(pygame.MOUSEMOTION, rel=(x, y), pos=(0, 0), buttons=(0, 0, 0))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_world_has_a_key_map_that_fits_it(name: str) -> None:
    config = PUBLIC[name].config
    keymap = find_keymap(name, config.family)
    keymap.check(config.action)
    assert keymap.buttons.keys() | {"no_move"} >= set(config.action.buttons)
    assert keymap.window["pause"]


def test_motion_is_a_speed_that_ends_at_the_axis_end() -> None:
    time = Time()
    look = Look(find_keymap("matrix-game-2"), time)
    time.now = 0.5
    look.feed(moved(60, 0))
    look.feed(moved(0, 90))
    assert look.sample() == pytest.approx({"yaw": 0.2, "pitch": -0.3})
    time.now = 1.0
    assert look.sample() == {}
    time.now = 1.1
    look.feed(moved(-5000, 0))
    assert look.sample() == {"yaw": -1.0}


def test_sensitivity_and_inversion_are_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[buttons]\n[mouse]\ny = "pitch"\npixels_per_second = 100.0\ninvert_y = true\n', "utf-8")
    time = Time()
    look = Look(load_keymap(path), time)
    time.now = 1.0
    look.feed(moved(0, 50))
    assert look.sample() == {"pitch": 0.5}


def test_keys_push_an_axis_while_they_are_held_and_a_tap_counts_once() -> None:
    look = Look(find_keymap("matrix-game-2-gta"), Time())
    look.feed(pygame.Event(pygame.KEYDOWN, key=pygame.K_LEFT))
    assert look.sample() == {"yaw": -1.0}
    look.feed(pygame.Event(pygame.KEYUP, key=pygame.K_LEFT))
    assert look.sample() == {}
    look.feed(pygame.Event(pygame.KEYDOWN, key=pygame.K_d))
    look.feed(pygame.Event(pygame.KEYUP, key=pygame.K_d))
    assert look.sample() == {"yaw": 1.0}


def test_an_axis_that_the_world_has_not_is_refused() -> None:
    space = ActionSpace(("forward", "back", "left", "right", "re_anchor"))
    with pytest.raises(ActionError, match="axes are none"):
        find_keymap("matrix-game-2").check(space)


def test_motion_that_is_sampled_often_adds_up_to_what_one_sample_of_a_tick_would_be() -> None:
    time, keymap = Time(), find_keymap("matrix-game-2")
    once, often = Look(keymap, time), Look(keymap, time)
    often.tick = 0.5
    total = 0.0
    for pixels in (10, 0, 35, -5, 20):
        time.now += 0.1
        for look in (once, often):
            look.feed(moved(pixels, 0))
        total += often.sample().get("yaw", 0.0)
    assert once.sample() == {"yaw": pytest.approx(total)}
