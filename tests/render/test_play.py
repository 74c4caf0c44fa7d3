"""A real window, real keys: what a person at the keyboard is promised."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import SEED, make_tiny_context
from tests.render.desktop import ROOT, Player, lacking, middle, playing, wait_for

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())

RIGHT, LEFT = Action(frozenset({"turn_right"})), Action(frozenset({"turn_left"}))


@pytest.fixture
def options(tiny_world_folder, tiny_scene) -> list[str]:
    return ["--world", str(tiny_world_folder), "--scene", str(tiny_scene)]


def box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is not black."""
    bright = pixels.max(-1) > 8
    columns, rows = np.flatnonzero(bright.any(0)), np.flatnonzero(bright.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_the_keys_that_are_held_are_what_the_world_dreams(screen, tmp_path, options, tiny_world_folder):
    """Paused from the start, then single ticks: the very frames of a session with the same actions."""
    with playing(screen, tmp_path, *options, "--no-hud") as player:
        player.press("p")
        player.screenshot(tick=0)
        player.type("keydown", "Right")
        seen = [middle(player.step(tick), scale=7) for tick in range(1, 6)]
        player.type("keyup", "Right")
        seen.append(middle(player.step(6), scale=7))
        player.press("Left")  # down and up again between two ticks
        seen += [middle(player.step(tick), scale=7) for tick in (7, 8)]
        player.press("Escape")
        assert player.end() == (0, "")
    session = Session(World.load(tiny_world_folder), make_tiny_context(), SEED)
    actions = [*[RIGHT] * 5, Action(), LEFT, Action()]
    assert np.array_equal(seen, [session.step(action)[0] for action in actions])


def test_what_the_window_does_at_the_touch_of_a_key(screen, tmp_path, options):
    """HUD, sizes, steps that do not exist, a scene that is not there, restart: and the world goes on."""
    with playing(screen, tmp_path, *options, "--speed", "0.5") as player:
        player.press("p")
        with_hud = player.screenshot(tick=0)
        player.press("h")
        without = player.screenshot(tick=0)
        height, width, _ = without.shape
        assert (with_hud != without)[: height // 2, : width // 2].any()
        player.press("h")
        assert np.array_equal(player.screenshot(tick=0), with_hud)
        player.press("h")

        for size in ((640, 360), (400, 600), (480, 480)):
            player.resize(*size)
            pixels = wait_for(lambda size=size: sized(player, size), f"a window of {size}")
            pixels[: size[1] // 5, size[0] // 2 :] = 0  # "paused", "0.5x speed"
            left, top, right, bottom = box(pixels)
            assert abs((left + right) - size[0]) <= 2 and abs((top + bottom) - size[1]) <= size[1] // 5 + 2
            assert right - left == pytest.approx(min(size), rel=0.1)

        player.press("bracketleft", "bracketleft", "Next", "F1", "F1", "equal", "minus", "n", "r")
        player.screenshot(tick=0)
        player.step(1)
        player.press("Escape")
        assert player.end() == (0, "")


def test_closing_the_window_ends_at_any_time(tiny_world_folder, tiny_scene):
    """The close button, pressed as soon as the window is there, while the world is still being loaded."""
    code = f"""
import threading, time, pygame
from pathlib import Path
from playhead.render.window.play import play
from playhead.render.window.settings import PlaySettings, SessionSettings

def close():
    while not pygame.display.get_init():
        time.sleep(0.01)
    pygame.event.post(pygame.Event(pygame.QUIT))

threading.Thread(target=close).start()
play(PlaySettings(SessionSettings({str(tiny_world_folder)!r}, {str(tiny_scene)!r})))
"""
    env = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def sized(player: Player, size: tuple[int, int]) -> np.ndarray | None:
    pixels = player.screenshot(tick=0)
    return pixels if pixels.shape[:2] == size[::-1] else None


def test_a_play_of_so_many_ticks_ends_by_itself(screen, tmp_path, options):
    with playing(screen, tmp_path, *options, "--ticks", "5", "--script", "w*3 right") as player:
        assert player.end() == (0, "")


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--steps", "9"], "1 to 8 denoise steps, not 9"),
        (["--script", "w*2 jump"], "`jump`"),
        (["--keys", "{keys}"], "unknown key `hyper`"),
        (["--scene", "nowhere"], "there is no scene `nowhere`"),
        (["--device", "abacus"], "no usable device `abacus`"),
        (["--scene", "acid-canyon"], "`acid-canyon` is one of the world `freedoom`, not of `tiny`"),
    ],
)
def test_what_cannot_be_played_ends_in_one_sentence(screen, tmp_path, options, extra, sentence):
    keys = tmp_path / "keys.toml"
    keys.write_text('[buttons]\nforward = ["hyper"]\n')
    extra = [option.format(keys=keys) for option in extra]
    with playing(screen, tmp_path, *options, *extra) as player:
        status, said = player.end()
    assert status == 2
    assert sentence in said and said.count("\n") == 1


def shift(before: np.ndarray, after: np.ndarray) -> float:
    """By how many pixels the view moved to the right from one frame `(H, W, 3)` to the next.

    Phase correlation of the rows around the horizon, where what is far away moves as the view turns.
    """
    height, width, _ = before.shape
    band = slice(height // 4, height * 5 // 8)
    window = np.hanning(width)
    a, b = (np.fft.rfft((f[band].mean(-1) - f[band].mean()) * window) for f in (before, after))
    cross = (a.conj() * b).sum(0)
    peak = np.fft.irfft(cross / (np.abs(cross) + 1e-9), n=width)
    peak = np.convolve(np.r_[peak, peak[:4]], np.ones(5) / 5, mode="valid")
    reach = width // 4
    moves = np.r_[-reach:reach]
    return float(moves[peak[moves].argmax()]) + 2


def test_holding_right_turns_the_view_right_and_left_left(screen, tmp_path):
    """When the view turns right, what is seen moves left."""
    shifts: dict[str, float] = {}
    with playing(screen, tmp_path, "--no-hud", "--seed", "1") as player:
        player.press("p")
        for key in ("Right", "Left"):
            pixels = [player.screenshot(tick=0)]
            player.type("keydown", key)
            pixels += [player.step(tick) for tick in range(1, 7)]
            player.type("keyup", key)
            player.press("r")
            shifts[key] = np.median([shift(before, after) for before, after in itertools.pairwise(pixels)])
        player.press("Escape")
        assert player.end() == (0, "")
    assert shifts["Right"] < 0 < shifts["Left"]
