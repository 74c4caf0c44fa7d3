"""A start that is kept is the start that any session has: whose it was, and its seed, leave no trace."""

from pathlib import Path

import numpy as np
import pytest

from playhead.engine.session import Session
from playhead.engine.starts import Starts
from playhead.scenes.scene import Scene, load_scene
from playhead.world.action import Action
from playhead.world.size import cache_bytes
from playhead.world.world import World
from tests.conftest import make_tiny_world

FORWARD = Action(frozenset({"forward"}))


def dream(session: Session) -> np.ndarray:
    return np.concatenate([session.frames, *(session.step(FORWARD) for _ in range(3))])


class Passes:
    """Counts the starts that sessions made of a context."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        reset = Session.reset

        def counted(session: Session, seed: int | None = None) -> np.ndarray:
            self.count += 1
            return reset(session, seed)

        monkeypatch.setattr(Session, "reset", counted)


@pytest.fixture
def scene(tiny_scene: Path) -> Scene:
    return load_scene(tiny_scene)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_session_at_a_start_dreams_what_one_of_its_own_does(one_pass: bool, scene: Scene) -> None:
    world, starts = make_tiny_world(one_pass=one_pass), Starts(most=2)
    played = starts.session(world, scene, 1)
    played.step(FORWARD)
    starts.enter(played, scene, 2)
    for session, seed in ((played, 2), (starts.session(world, scene, 3), 3)):
        assert np.array_equal(dream(session), dream(Session(world, scene.context, seed)))


def test_a_start_is_made_once(tiny_world: World, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, passes = Starts(most=1), Passes(monkeypatch)
    session = starts.session(tiny_world, scene, 1)
    starts.enter(session, scene, 2)
    starts.session(tiny_world, scene, 3)
    assert passes.count == 1


def test_steps_stay_where_a_session_begins_again(tiny_world: World, scene: Scene) -> None:
    starts = Starts(most=1)
    session = starts.session(tiny_world, scene, 1)
    session.steps = 1
    starts.enter(session, scene, 1)
    assert (session.steps, starts.session(tiny_world, scene, 1).steps) == (1, tiny_world.steps)


def test_no_more_starts_are_kept_than_said_and_none_that_is_too_large(
    tiny_world: World, tiny_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [load_scene(tiny_scene) for _ in range(3)]  # equal, and each with a context of its own
    size = cache_bytes(tiny_world.config, tiny_world.dtype.itemsize)
    for starts, wanted in ((Starts(most=2), 4), (Starts(most=2, largest=size), 4), (Starts(2, size - 1), 6)):
        with monkeypatch.context() as patch:
            passes = Passes(patch)
            for scene in (*scenes, scenes[2], scenes[1], scenes[0]):
                starts.session(tiny_world, scene, 1)
            assert passes.count == wanted
