"""What a scene of a moment of a recording promises: it goes on as that moment does."""

from pathlib import Path

import numpy as np
import pytest

from playhead.engine.recording.moment import moment_scene
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import open_session
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.world.errors import WorldError
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world
from tests.played import FIRST, FORK, act, record_play


@pytest.fixture
def file(tiny_world: World, tmp_path: Path) -> Path:
    record_play(tmp_path / "play.playhead", tiny_world)
    return tmp_path / "play.playhead"


def test_while_all_of_its_past_is_remembered_it_goes_on_to_the_very_frames(
    file: Path, tiny_world: World
) -> None:
    """Two ticks on a context of four fill the window of six: nothing is forgotten yet."""
    recording = Recording.read(file)
    session = open_session(recording, tiny_world, 1)
    for tick in (1, 2):
        session.step(act(tick))
    scene = moment_scene(recording, tiny_world, Point(1, 2), tiny_world.config.sampling.window)
    again = Session(tiny_world, scene.context, session.seed)
    assert np.array_equal(again.frames, session.frames)
    again.tick = session.tick  # so that the same noise comes
    assert np.array_equal(
        np.concatenate([again.step(act(t)) for t in range(9)]),
        np.concatenate([session.step(act(t)) for t in range(9)]),
    )


@pytest.mark.parametrize("point", [Point(1, FIRST), Point(2, FORK + 5), Point(2, 3), Point(1, 0)])
def test_it_shows_the_last_frames_before_the_moment_and_what_was_held(
    point: Point, any_world: World, tmp_path: Path
) -> None:
    seen = record_play(tmp_path / "play.playhead", any_world)
    recording = Recording.read(tmp_path / "play.playhead")
    context = moment_scene(recording, any_world, point, 4).context
    past = [*make_tiny_context().frames[:-1], *seen[point.branch][: point.tick + 1]]
    assert np.array_equal(context.frames[-3:], past[-3:]) or not point.tick
    held = [played.action for played in recording.tree.path(point.branch, point.tick)][-3:]
    space = any_world.config.action
    if point.tick:
        assert [space.decode(row) for row in context.actions[-1 - len(held) : -1]] == held
        assert not context.actions[-1].any()
    Session(any_world, context, 0).step(act(3))


def test_of_several_frames_a_latent_all_are_kept(tmp_path: Path) -> None:
    world = make_tiny_world(time_factor=2)
    seen = record_play(tmp_path / "play.playhead", world)
    context = moment_scene(Recording.read(tmp_path / "play.playhead"), world, Point(1, 9), 4).context
    assert context.latents is not None and len(context.latents) == 4
    end = len(seen[1]) - 2 * (FIRST - 9)
    assert np.array_equal(context.frames, seen[1][end - 8 : end])
    led = [world.config.action.decode(row) for row in context.actions[1::2]]
    assert led[:-1] == [act(7), act(8), act(9)]
    Session(world, context, 0).step(act(3))


def test_a_length_that_is_none_is_said(file: Path, tiny_world: World) -> None:
    with pytest.raises(WorldError, match="--length 0"):
        moment_scene(Recording.read(file), tiny_world, Point(1, 5), 0)
