"""What a rollout promises: its frames depend on world, context, seed, steps and the actions so far."""

import itertools

import numpy as np
import pytest

from playhead.engine.rollout import rolling
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.errors import ActionError
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_world

WALK = [Action(frozenset({"forward"}))] * 30


def play(world: World, context: Context, actions: list[Action], seed: int = 0) -> np.ndarray:
    return np.concatenate(list(rolling(Session(world, context, seed), actions)))


def test_there_is_a_frame_for_every_tick(tiny_world: World, tiny_context: Context) -> None:
    frames = play(tiny_world, tiny_context, WALK)
    assert frames.shape == (30, 64, 64, 3)
    assert frames.dtype == np.uint8


def test_a_world_with_two_frames_a_tick_gives_both(tiny_context: Context) -> None:
    assert len(play(make_tiny_world(time_factor=2), tiny_context, WALK)) == 60


def test_the_same_again_is_the_same_and_another_seed_is_not(tiny_world: World, tiny_context: Context) -> None:
    frames = play(tiny_world, tiny_context, WALK)
    assert np.array_equal(frames, play(tiny_world, tiny_context, WALK))
    assert not np.array_equal(frames, play(tiny_world, tiny_context, WALK, seed=1))


@pytest.mark.parametrize("button", BUTTONS[1:])
def test_a_changed_key_changes_the_future_only(button: str, tiny_world: World, tiny_context: Context) -> None:
    changed = [*WALK[:20], Action(frozenset({button})), *WALK[21:]]
    frames, others = (play(tiny_world, tiny_context, actions) for actions in (WALK, changed))
    assert np.array_equal(frames[:20], others[:20])
    assert not np.array_equal(frames[20], others[20])


def test_frames_handed_over_are_not_overwritten(tiny_world: World, tiny_context: Context) -> None:
    kept = list(rolling(Session(tiny_world, tiny_context, 0), WALK))
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(kept))


def test_an_unknown_button_is_refused_before_the_first_tick(tiny_world: World, tiny_context: Context) -> None:
    session = Session(tiny_world, tiny_context, 0)
    with pytest.raises(ActionError, match="`jump`"):
        rolling(session, [*WALK, Action(frozenset({"jump"}))])
    assert session.tick == 0
