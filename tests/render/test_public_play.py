"""A public world in a real window: the mouse looks about, the world waits for keys, prompts are told."""

import time
from pathlib import Path

import pygame
import pytest

from playhead.controls.keymap import find_keymap
from playhead.engine.recording.reader import Recording
from playhead.render.window.prompts import prompt_note
from playhead.scenes.build import save_scene
from playhead.scenes.scene import Scene, SceneFields
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.home import scenes_folder
from playhead.world.randomise import random_context, random_world, save_world_config
from tests.render.desktop import Player, lacking, playing, wait_for

windowed = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small Matrix-Game 2 of random weights and a scene for it, in a home of their own."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    config = random_world("matrix-game-2", small=True)
    save_world_config(config)
    fields = SceneFields("start", "Start", "", config.name, 0, "context.npz")
    save_scene(fields, random_context(config), scenes_folder())
    return config.name


def newest_tick(player: Player) -> int:
    player.press("F12")
    path = wait_for(lambda: next(player.folder.glob("*.png"), None), "a screenshot")
    path.unlink()
    return int(path.stem[-6:])


def rest(player: Player) -> int:
    """Waits until what was moved has been played: the number of the last tick."""
    seen = [-2, -1]
    while seen[-1] != seen[-2]:
        time.sleep(0.7)  # more than two ticks of this world at this speed
        seen.append(newest_tick(player))
    return seen[-1]


def move(player: Player, x: int, y: int) -> None:
    """Moves the mouse until a tick is played by it."""
    over = rest(player)
    for _ in range(200):
        player.type("mousemove_relative", "--", str(x), str(y))
        if newest_tick(player) > over:
            return
    raise AssertionError("the mouse moved nothing")


def played(folder: Path) -> list[Action]:
    (file,) = folder.glob("*.playhead")
    return [tick.action for branch in Recording.read(file).tree.branches.values() for tick in branch.ticks]


@windowed
def test_the_mouse_looks_about_and_without_it_the_held_world_waits(screen, tmp_path, world):
    """Also after the window was full screen for a while, which shows the mouse and hides it again."""
    options = ("--world", world, "--hold", "--speed", "2", "--record", str(tmp_path / "recordings"))
    with playing(screen, tmp_path, *options) as player:
        assert player.window
        wait_for(lambda: newest_tick(player) == 0 or None, "the start")
        assert [newest_tick(player) for _ in range(3)] == [0] * 3
        move(player, 30, 0)
        move(player, 0, 30)
        player.press("f", "f")
        move(player, -30, 0)
        rest(player)
        player.press("Escape")
        assert player.end() == (0, "")
    actions = played(tmp_path / "recordings")
    assert all(action.axes for action in actions)  # nothing was dreamed while nothing moved
    assert actions[0].axes["yaw"] > 0 and "pitch" not in actions[0].axes
    assert any(action.axes.get("pitch", 0) < 0 for action in actions)
    assert actions[-1].axes["yaw"] < 0


@windowed
def test_the_key_maps_sensitivity_and_inversion_count_in_the_window(screen, tmp_path, world):
    keys = tmp_path / "keys.toml"
    text = (Path(find_keymap(world).path)).read_text("utf-8")
    assert "pixels_per_second = 600.0" in text and "invert_y = false" in text
    text = text.replace("pixels_per_second = 600.0", "pixels_per_second = 60000.0\ninvert_x = true")
    keys.write_text(text.replace("invert_y = false", "invert_y = true"), "utf-8")
    options = ("--world", world, "--hold", "--speed", "2", "--record", str(tmp_path / "recordings"))
    with playing(screen, tmp_path, *options, "--keys", str(keys)) as player:
        assert player.window
        wait_for(lambda: newest_tick(player) == 0 or None, "the start")
        move(player, 30, 30)
        player.press("Escape")
        assert player.end() == (0, "")
    for action in played(tmp_path / "recordings"):
        assert -0.1 < action.axes["yaw"] < 0 < action.axes["pitch"] < 0.1


@windowed
def test_a_key_has_the_world_wait_for_others_and_go_on_again(screen, tmp_path, world):
    with playing(screen, tmp_path, "--world", world, "--speed", "2") as player:
        assert player.window
        wait_for(lambda: newest_tick(player) > 1 or None, "the first ticks")
        player.press("t")

        def stands() -> bool | None:
            tick = newest_tick(player)
            time.sleep(0.7)  # more than two ticks: two looks in the same one would show nothing
            return newest_tick(player) == tick or None

        wait_for(stands, "a stand")
        tick = newest_tick(player)
        player.press("w")
        wait_for(lambda: newest_tick(player) == tick + 1 or None, "the tick of a tap")
        player.press("t")
        wait_for(lambda: newest_tick(player) > tick + 2 or None, "going on")
        player.press("Escape")
        assert player.end() == (0, "")


def prompted(count: int, texts: tuple[str, ...] = ()) -> Scene:
    config = random_world("self-forcing", small=True)
    whole = random_context(config)
    context = Context(whole.frames, whole.actions, prompts=whole.prompts[:count])
    return Scene("s", "S", "", config.name, 0, context, texts)


def test_a_prompts_key_says_its_words_or_that_there_is_none_of_that_number() -> None:
    keymap = find_keymap("self-forcing", "wan-text")
    scene = prompted(2, ("calm", "a storm"))
    assert prompt_note(keymap, pygame.K_2, scene) == "2  ·  a storm"
    long = prompt_note(keymap, pygame.K_1, prompted(1, ("waves " * 50,)))
    assert long.startswith("1  ·  waves") and long.endswith("…") and len(long) < 130
    assert prompt_note(keymap, pygame.K_5, scene) == "this scene has 2 prompts, so there is none of number 5"
    assert prompt_note(keymap, pygame.K_2, prompted(1)) == (
        "this scene has 1 prompt, so there is none of number 2"
    )
    assert prompt_note(keymap, pygame.K_1, prompted(1)) == ""
    assert prompt_note(keymap, pygame.K_0, scene) == prompt_note(keymap, pygame.K_w, scene) == ""
