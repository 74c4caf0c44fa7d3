"""Around the window: what is drawn over the picture, screenshots, options, and no display."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest

from playhead.controls.keymap import find_keymap
from playhead.engine.stats import LinkStats, Stats
from playhead.render.window.hud import draw_hud, draw_note, draw_state, figures
from playhead.render.window.screens import draw_help, draw_loading
from playhead.render.window.settings import parse_steps
from playhead.render.window.window import save_screenshot
from playhead.world.errors import PlayheadError, WorldError

ROOT = Path(__file__).parents[2]
STATS = Stats(
    tick=1234, seed=42, steps=2, auto=False, paused=False, speed=1.0, held=("forward", "turn_right"),
    budget=0.057, rate=17.49, wanted_rate=17.5, tick_p50=0.0412, tick_p99=0.0488, key_p50=0.051,
    key_p99=0.093, missed=3, counted=120, slow=False,
)  # fmt: skip
SIZES = [(256, 160), (480, 300), (768, 480), (1920, 1080), (300, 700)]


@pytest.fixture(autouse=True)
def fonts():
    pygame.font.init()


def test_the_figures_are_in_milliseconds_and_say_what_they_are():
    text = dict(figures(STATS))
    assert text["tick"] == "41 ms p50   49 ms p99"
    assert text["budget"] == "57 ms   missed 3 of 120"
    assert text["rate"] == "17.5 of 17.5 ticks/s"
    assert text["steps"] == "2"
    assert text["key to frame"] == "51 ms p50   93 ms p99"
    assert text["seed"].startswith("42")


def test_of_a_session_elsewhere_the_way_there_is_shown_and_a_break_in_it():
    link = LinkStats("", 0.0412, 0.0603, 0.0014, 0.008, "h264")
    text = dict(figures(replace(STATS, link=link)))
    assert text["round trip"] == "41 ms p50   60 ms p99"
    assert text["decode"] == "1.4 ms h264   smoothed by 8 ms"
    assert "round trip" not in dict(figures(STATS))
    well, broken = (pygame.Surface((768, 480), depth=32) for _ in range(2))
    draw_state(well, replace(STATS, link=link), warn=True)
    draw_state(broken, replace(STATS, slow=True, link=replace(link, state="no connection")), warn=True)
    assert not pygame.surfarray.array3d(well).any()
    shown = pygame.surfarray.array3d(broken).any(2).any(0)
    assert np.count_nonzero(np.diff(np.r_[0, shown].astype(int)) == 1) == 1  # one label: old figures are not


def test_what_was_not_measured_has_no_figure():
    text = dict(figures(replace(STATS, rate=None, tick_p50=None, key_p50=None, auto=True)))
    assert text["rate"].startswith("- of")
    assert text["steps"] == "2 (auto)"
    assert "key to frame" not in text


def test_it_is_said_what_of_a_world_is_offloaded():
    said = "23 of 30 blocks in main memory, 9.0 GB a tick"
    assert dict(figures(replace(STATS, offloaded=said)))["offloaded"] == said
    assert "offloaded" not in dict(figures(STATS))


FAILURE = f"recording to /{'long-' * 20}folder/play.playhead stopped (disk full); what was written is kept"


@pytest.mark.parametrize("size", SIZES)
def test_everything_is_drawn_in_windows_of_any_size(size):
    keymap = find_keymap("freedoom")
    for draw in (
        lambda screen: draw_hud(screen, STATS, "The acid canyon"),
        lambda screen: draw_state(screen, replace(STATS, paused=True, speed=0.25), warn=True),
        lambda screen: draw_state(screen, replace(STATS, slow=True), warn=True),
        lambda screen: draw_state(screen, STATS, warn=True, failure=FAILURE),
        lambda screen: draw_note(screen, "a sentence that is longer than small windows are wide " * 3),
        lambda screen: draw_help(screen, keymap),
        lambda screen: draw_loading(screen, "loading the world freedoom", 0.5),
    ):
        screen = pygame.Surface(size, depth=32)
        draw(screen)
        assert pygame.surfarray.array3d(screen).any()


def test_why_nothing_is_recorded_is_said_whole_beside_the_figures():
    screen, short = (pygame.Surface((768, 480), depth=32) for _ in range(2))
    draw_state(screen, STATS, warn=True, failure=FAILURE)
    draw_state(short, STATS, warn=False, failure=FAILURE)
    shown, brief = (pygame.surfarray.array3d(s).any(2) for s in (screen, short))
    assert not shown[: 768 // 2 - 40].any() and shown.sum() > 3 * brief.sum()
    lines = [np.count_nonzero(np.diff(np.r_[0, s.any(0)].astype(int)) == 1) for s in (shown, brief)]
    assert lines[0] > 2 and lines[1] == 1


def test_as_long_as_all_is_as_usual_no_state_is_drawn():
    screen = pygame.Surface((480, 300), depth=32)
    draw_state(screen, STATS, warn=True)
    assert not pygame.surfarray.array3d(screen).any()


def test_screenshots_never_overwrite_one_another(tmp_path):
    picture = pygame.Surface((8, 8), depth=32)
    paths = [save_screenshot(picture, tmp_path / "new", "a-000001") for _ in range(3)]
    assert [p.name for p in paths] == ["a-000001.png", "a-000001-2.png", "a-000001-3.png"]
    assert pygame.image.load(paths[2]).get_size() == (8, 8)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlayheadError, match=r"cannot be written.*--screenshots"):
        save_screenshot(pygame.Surface((8, 8)), tmp_path / "file", "a")


def test_steps_are_a_number_or_auto():
    assert parse_steps(None) == (None, False)
    assert parse_steps("auto") == (None, True)
    assert parse_steps("3") == (3, False)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_other_steps_are_refused(text):
    with pytest.raises(WorldError, match="--steps is a whole number from 1 on, or auto"):
        parse_steps(text)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs the project's Python where there is no display."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can be without a display")
def test_without_a_display_play_says_so_and_names_what_needs_none():
    ended = run("main.py", "play")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert all(word in ended.stderr for word in ("no display", "`web`", "`rollout`"))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--speed", "3", "a speed is a factor from 0.25 to 2"),
        ("--steps", "0", "--steps is a whole number from 1 on"),
    ],
)
def test_options_out_of_range_are_refused_before_a_window_opens(option, value, sentence):
    ended = run("main.py", "play", option, value)
    assert ended.returncode == 2
    assert sentence in ended.stderr and ended.stderr.count("\n") == 1


def test_the_window_and_the_help_need_no_torch():
    ended = run(
        "-c", "import sys, playhead.main, playhead.render.window.play; sys.exit('torch' in sys.modules)"
    )
    assert ended.returncode == 0, ended.stderr
