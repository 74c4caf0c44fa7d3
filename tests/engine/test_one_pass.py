"""A world whose last denoise pass commits promises all that sessions do, in one step a tick and in two."""

import numpy as np
import pytest

from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world

TICKS = 40  # more than window and far memory reach back
WALK = [Action(frozenset({"forward", "turn_left"} if i % 3 else ())) for i in range(TICKS + 3)]


@pytest.fixture(
    scope="module",
    params=[((1000.0,), 0), ((1000.0, 500.0), 0), ((1000.0,), 2)],
    ids=["one step", "two steps", "with rest"],
)
def world(request: pytest.FixtureRequest) -> World:
    steps, rest = request.param
    world = make_tiny_world(one_pass=True, steps=steps, rest_after=rest)
    assert world.config.sampling.reach < TICKS
    return world


def session(world: World, seed: int = 5) -> Session:
    return Session(world, make_tiny_context(), seed)


def test_a_snapshot_goes_on_bit_for_bit_wherever_it_was_taken(world: World) -> None:
    played, kept = session(world), []
    frames = []
    for tick in range(TICKS):
        kept.append(played.snapshot())
        frames.append(played.step(WALK[tick]))
    other = session(world, 9)
    for snapshot in kept[::7]:
        other.restore(snapshot)
        for tick in range(snapshot.tick, TICKS):
            assert np.array_equal(other.step(WALK[tick]), frames[tick])


def test_a_fork_has_the_same_past_and_its_own_future(world: World) -> None:
    one = session(world)
    for tick in range(12):
        one.step(WALK[tick])
    two = one.fork()
    assert np.array_equal(one.step(WALK[12]), two.step(WALK[12]))
    assert not np.array_equal(one.step(Action()), two.step(Action(frozenset({"back"}))))


def test_a_tick_that_is_retraced_is_the_tick_that_was_played(world: World) -> None:
    played, again = session(world), session(world)
    for tick in range(TICKS):
        frames = played.step(WALK[tick])
        assert np.array_equal(again.retrace(WALK[tick], played.latents), frames)
        assert np.array_equal(again.latents, played.latents)


def test_sessions_that_share_a_pass_play_as_each_alone(world: World) -> None:
    together, alone = ([session(world, seed) for seed in (1, 2, 3)] for _ in range(2))
    for tick in range(TICKS):
        actions = WALK[tick : tick + 3]
        shared = step_together(together, actions)
        for frames, one, action in zip(shared, alone, actions, strict=True):
            assert np.array_equal(frames, one.step(action))


def test_a_past_does_not_depend_on_the_steps_that_are_played(world: World) -> None:
    one, other = session(world), session(world)
    other.steps = 3
    other.reset()
    other.steps = one.steps
    assert np.array_equal(one.step(WALK[0]), other.step(WALK[0]))


def test_the_latents_of_the_tick_before_count(world: World) -> None:
    """What is dreamed depends on them, not on the keys and values alone."""
    one, other = session(world), session(world)
    other._state.previous += 1
    assert not np.array_equal(one.step(Action()), other.step(Action()))
