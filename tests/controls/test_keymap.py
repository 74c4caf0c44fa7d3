"""Key maps: readable data, checked on reading, with one sentence for every slip."""

from pathlib import Path

import pygame
import pytest

from playhead.controls.keymap import DEFAULT, FUNCTIONS, SHIPPED, find_keymap, load_keymap
from playhead.world.action import ActionSpace
from playhead.world.errors import ActionError
from tests.conftest import BUTTONS


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ActionError) as raised:
        load_keymap(path)
    sentence = str(raised.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_key_map_can_be_used(path):
    assert set(load_keymap(path).window) == set(FUNCTIONS)


def test_freedoom_is_played_with_wasd_arrows_space_and_e():
    keymap = find_keymap("freedoom")
    keymap.check(ActionSpace(tuple(BUTTONS)))
    assert set(keymap.buttons) == set(BUTTONS)
    for keys, button in {
        "w up": "forward", "s down": "back", "left": "turn_left", "right": "turn_right",
        "a": "strafe_left", "d": "strafe_right", "space": "attack", "e": "use",
    }.items():  # fmt: skip
        for key in keys.split():
            assert keymap.held_by_key[pygame.key.key_code(key)] == {button}
            assert keymap.aliases[key] == button


def test_a_world_without_a_key_map_of_its_own_takes_that_of_freedoom():
    assert find_keymap("/some/folder/of-a-world").path == DEFAULT


def test_a_key_may_hold_two_buttons(tmp_path):
    keymap = load_keymap(write(tmp_path, '[buttons]\nforward = ["w", "q"]\nattack = ["q"]\n'))
    assert keymap.held_by_key[pygame.K_q] == {"forward", "attack"}


def test_a_file_without_window_keys_keeps_the_shipped_ones_that_it_does_not_use(tmp_path):
    keymap = load_keymap(write(tmp_path, '[buttons]\nforward = ["p"]\n'))
    assert keymap.held_by_key[pygame.K_p] == {"forward"}
    assert pygame.K_p not in keymap.function_of_key
    assert keymap.function_of_key[pygame.K_ESCAPE] == "quit"


def test_an_unknown_key_is_named(tmp_path):
    sentence = refusal(write(tmp_path, '[buttons]\nforward = ["w", "hyper"]\n'))
    assert "[buttons] has an unknown key `hyper`" in sentence
    assert "unknown key `pgup`" in refusal(
        write(tmp_path, '[buttons]\nforward = ["w"]\n[window]\nquit = ["pgup"]\n')
    )


def test_a_button_that_the_world_does_not_have_is_named(tmp_path):
    keymap = load_keymap(write(tmp_path, '[buttons]\njump = ["w"]\n'))
    with pytest.raises(ActionError, match=r"names `jump`.*forward, back"):
        keymap.check(ActionSpace(tuple(BUTTONS)))


def test_an_unknown_function_of_the_window_is_named(tmp_path):
    text = '[buttons]\nforward = ["w"]\n[window]\nwindow_shopping = ["p"]\n'
    assert "names `window_shopping`" in refusal(write(tmp_path, text))


def test_an_unknown_part_of_a_gamepad_is_named(tmp_path):
    text = '[buttons]\nforward = ["w"]\n[gamepad]\nforward = ["left stick sideways"]\n'
    assert "no part `left stick sideways`" in refusal(write(tmp_path, text))


@pytest.mark.parametrize("quit", ["p", "w"])
def test_a_key_cannot_do_two_things(tmp_path, quit):
    text = f'[buttons]\nforward = ["w"]\n[window]\npause = ["p"]\nquit = ["{quit}"]\n'
    assert f"the key `{quit}`" in refusal(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    ["[buttons\n", "", '[buttons]\nforward = "w"\n', "[buttons]\nforward = [1]\n", "[keys]\n", "\xff"],
)
def test_a_broken_file_is_refused(tmp_path, text):
    assert "not a usable key map" in refusal(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    assert "is missing" in refusal(tmp_path / "nothing.toml")
    assert "cannot be read" in refusal(tmp_path)
