"""The timeline in a real window: what was played can be looked through, gone back to and named, by keys."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.render.window.scrub import DOUBLES, FASTEST, HESITATION, distance
from playhead.render.window.text import ACCENT, GREY
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import SEED, make_tiny_context
from tests.render.desktop import Player, lacking, middle, playing
from tests.render.live import go_back, play_a_little
from tests.tools.recorded import replay

RIGHT, LEFT = Action(frozenset({"turn_right"})), Action(frozenset({"turn_left"}))
needs_a_desktop = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(scope="module")
def start(tiny_world_folder: Path, tiny_scene: Path) -> list[str]:
    return ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--no-hud"]


def the_recording(home: Path) -> Recording:
    (file,) = (home / "recordings").glob("*.playhead")
    return Recording.read(file)


def frames_of(world_folder: Path, *actions: Action) -> list[np.ndarray]:
    """What a session shows that plays these actions, from its start on."""
    session = Session(World.load(world_folder), make_tiny_context(), SEED)
    return [session.frames[-1], *(session.step(action)[-1] for action in actions)]


def back_at(player: Player, tick: int) -> np.ndarray:
    """A screenshot of a tick once nothing lies over it any more."""
    while strip_of(pixels := player.screenshot(tick)):
        pass
    return pixels


def steps(player: Player, count: int) -> None:
    player.press(*["period"] * count)


@needs_a_desktop
def test_letting_go_plays_on_from_there_on_a_branch(screen, tmp_path, home, start, tiny_world_folder):
    """Six ticks to the right, two back, then to the left: the very frames of a session that did just that."""
    with playing(screen, tmp_path, *start) as player:
        player.press("p")
        player.screenshot(tick=0)
        player.type("keydown", "Right")
        steps(player, 6)
        player.screenshot(tick=6)
        player.type("keyup", "Right")
        player.press("z")
        player.press("z")
        seen = [middle(back_at(player, 4), scale=7)]
        player.type("keydown", "Left")
        seen += [middle(player.step(tick), scale=7) for tick in (5, 6)]
        player.press("Escape")
        assert player.end() == (0, "")
    assert np.array_equal(seen, frames_of(tiny_world_folder, *[RIGHT] * 4, LEFT, LEFT)[4:])
    tree = the_recording(home).tree
    assert [(branch.parent, branch.last) for branch in tree.branches.values()] == [
        (None, 6),
        (Point(1, 4), 6),
    ]


@needs_a_desktop
def test_while_the_key_is_held_what_was_played_passes_by_over_the_strip(screen, tmp_path, home, start):
    """Back to the start, forward to the end again, and the world goes on: that makes no branch."""
    with playing(screen, tmp_path, *start, "--script", "w*30") as player:
        plain = player.screenshot_after(30)
        player.type("keydown", "z")
        at_start = player.screenshot(tick=0)
        height = len(at_start)
        assert strip_of(at_start) and not strip_of(plain)
        assert (at_start[: height // 2] != plain[: height // 2]).any()
        player.type("keydown", "x")
        time.sleep(2.5)
        player.type("keyup", "x", "keyup", "z")
        while strip_of(player.screenshot_after(0)):
            pass
        player.screenshot_after(60)
        player.press("Escape")
        assert player.end() == (0, "")
    assert len(the_recording(home).tree.branches) == 1


def strip_of(pixels: np.ndarray) -> bool:
    """Whether the line of a branch is drawn in the lower part of a screenshot."""
    lower = pixels[3 * len(pixels) // 4 :].reshape(-1, 3)
    return bool(sum((lower == colour).all(-1).sum() for colour in (ACCENT, GREY)) > 300)


@needs_a_desktop
def test_the_last_second_is_undone(screen, tmp_path, home, start, tiny_world_folder):
    with playing(screen, tmp_path, *start) as player:
        player.press("p")
        player.screenshot(tick=0)
        player.type("keydown", "Right")
        steps(player, 20)
        player.screenshot(tick=20)
        player.press("BackSpace")
        player.screenshot(tick=2)  # a second of this world has 18 ticks
        steps(player, 1)
        player.screenshot(tick=3)
        player.press("Escape")
        assert player.end() == (0, "")
    assert the_recording(home).tree.branches[2].parent == Point(1, 2)


@needs_a_desktop
def test_bookmarks_have_names_and_are_gone_back_to(screen, tmp_path, home, start):
    """What is typed into the name does nothing else: `r` would restart, `w` walk, and return `use`."""
    with playing(screen, tmp_path, *start) as player:
        player.press("p")
        player.screenshot(tick=0)
        steps(player, 4)
        player.screenshot(tick=4)
        player.press("b")
        player.type("type", "--delay", "20", "row p")
        player.press("Return")
        steps(player, 5)
        player.screenshot(tick=9)
        player.press("b", "Return")
        player.press("b", "x", "Escape")
        player.press("Tab", "Up", "Up", "Up", "Down")  # bookmark 2 is on top, then comes `row p`
        player.screenshot(tick=4)
        player.press("Return")
        player.screenshot(tick=4)
        steps(player, 1)
        player.screenshot(tick=5)
        player.press("Tab", "Home", "Escape")
        player.screenshot(tick=5)
        player.press("Escape")
        assert player.end() == (0, "")
    tree = the_recording(home).tree
    assert [(mark.name, mark.point) for mark in tree.bookmarks] == [
        ("row p", Point(1, 4)),
        ("bookmark 2", Point(1, 9)),
    ]
    assert tree.branches[2].parent == Point(1, 4)
    assert not any(tick.action.buttons for branch in tree.branches.values() for tick in branch.ticks)


@needs_a_desktop
def test_a_play_full_of_rewinds_comes_back_in_another_process(screen, tmp_path, home, start):
    """Keys at odd moments, back, undone, bookmarked: every frame's hash of every branch is equal."""
    draw = random.Random(5)
    with playing(screen, tmp_path, *start, "--speed", "2") as player:
        player.screenshot_after(10)
        for _ in range(8):
            play_a_little(player, draw)
            go_back(player, draw)
        player.press("Escape")
        assert player.end() == (0, "")
    recording = the_recording(home)
    branches = recording.tree.branches
    assert len(branches) > 4 and recording.tree.bookmarks
    assert {tick.source for branch in branches.values() for tick in branch.ticks} == {"keyboard"}
    said = replay(recording.path, Path(start[1]))
    assert said == f"{recording.tree.count} ticks of {len(branches)} branches, every frame equal"


def test_a_tap_is_one_tick_and_holding_gets_faster() -> None:
    assert distance(0, 20) == distance(HESITATION, 20) == 1
    times = np.arange(HESITATION, 12, 0.05)
    ticks = [distance(held, 20) for held in times]
    assert ticks == sorted(ticks)
    assert distance(HESITATION + DOUBLES, 20) == 1 + 14 and ticks[-1] > 30_000
    ends = [distance(20 + s, 20) for s in (0, 1)]
    assert ends[1] - ends[0] == pytest.approx(20 * FASTEST, abs=1)
