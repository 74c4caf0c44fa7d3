"""What a session promises: its past can be gone back to exactly, and forks never touch one another."""

from collections.abc import Sequence

import numpy as np
import pytest
from torch import Tensor

from engine.session import Session
from world.action import Action
from world.context import Context
from world.errors import WorldError
from world.world import World

WALK = Action(frozenset({"forward"}))
TURN = Action(frozenset({"turn_left"}))


@pytest.fixture
def session(any_world: World, tiny_context: Context) -> Session:
    session = Session(any_world, tiny_context, seed=5)
    for _ in range(7):  # further than the window of 6 latents: the ring has turned over
        session.step(WALK)
    return session


def play(session: Session, action: Action, ticks: int) -> np.ndarray:
    return np.concatenate([session.step(action) for _ in range(ticks)])


def test_fifty_ticks_after_a_restore_are_the_fifty_ticks_after_the_snapshot(session: Session) -> None:
    snapshot = session.snapshot()
    first = play(session, WALK, 50)
    session.restore(snapshot)
    assert np.array_equal(first, play(session, WALK, 50))


def test_a_snapshot_can_be_restored_again_and_again(session: Session) -> None:
    snapshot = session.snapshot()
    runs = []
    for other in (WALK, TURN, WALK):
        frames = session.restore(snapshot)
        assert session.tick == 7
        assert np.array_equal(frames, snapshot.frames)
        runs.append(play(session, other, 10))
    assert np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0], runs[1])


def test_what_was_foreseen_is_what_would_have_been(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, snapshot = session.world, session.snapshot()
    alone = np.split(play(session, WALK, 6), 6)
    drawn: list[int] = []
    noises = world.noises

    def watched(seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        drawn.append(tick)
        return noises(seeds, tick, step, shape)

    monkeypatch.setattr(world, "noises", watched)
    session.restore(snapshot)
    for number, frames in enumerate(alone):
        drawn.clear()
        assert np.array_equal(session.step(WALK), frames)
        assert bool(drawn) == (number == 0)  # all later noise was there
        world.foresee(session._state, [session.seed], session.tick)
    session.restore(snapshot)  # and now it is that of another tick
    assert np.array_equal(session.step(WALK), alone[0])


def test_taking_a_snapshot_changes_nothing(any_world: World, tiny_context: Context) -> None:
    watched, left_alone = (Session(any_world, tiny_context, seed=5) for _ in range(2))
    for _ in range(10):
        frames = watched.step(WALK)
        watched.snapshot()
        assert np.array_equal(frames, left_alone.step(WALK))


def test_a_fork_has_the_same_past_and_a_future_of_its_own(session: Session) -> None:
    twin = session.fork()
    assert twin.tick == session.tick
    apart = play(twin, TURN, 10)
    alone = play(session, WALK, 10)
    assert not np.array_equal(apart, alone)
    again = session.fork()  # from another tick: the forks differ, the first fork goes on unmoved
    assert again.tick == 17
    assert np.array_equal(play(session, WALK, 5), play(again, WALK, 5))


def test_a_fork_steps_as_the_session_does_in_any_order(session: Session) -> None:
    twin = session.fork()
    for _ in range(10):
        assert np.array_equal(session.step(WALK), twin.step(WALK))


def test_a_snapshot_moves_to_another_session(
    session: Session, any_world: World, tiny_context: Context
) -> None:
    snapshot = session.snapshot()
    other = Session(any_world, tiny_context, seed=99)
    other.restore(snapshot)
    assert np.array_equal(play(session, WALK, 5), play(other, WALK, 5))


def test_reset_is_a_new_session(session: Session, any_world: World, tiny_context: Context) -> None:
    session.reset(3)
    assert (session.tick, session.seed) == (0, 3)
    assert np.array_equal(play(session, WALK, 5), play(Session(any_world, tiny_context, 3), WALK, 5))


def test_warming_up_leaves_no_trace(any_world: World, tiny_context: Context) -> None:
    warm, cold = (Session(any_world, tiny_context, seed=5) for _ in range(2))
    warm.warm_up()
    assert np.array_equal(play(warm, WALK, 5), play(cold, WALK, 5))


def test_the_step_count_changes_the_dream_and_may_change_back(session: Session) -> None:
    snapshot = session.snapshot()
    steps = session.steps
    usual = play(session, WALK, 3)
    session.restore(snapshot)
    session.steps = 3 - steps  # 1 in place of 2, or 2 in place of 1
    assert not np.array_equal(usual, play(session, WALK, 3))
    session.restore(snapshot)
    session.steps = steps
    assert np.array_equal(usual, play(session, WALK, 3))


def test_a_context_or_seed_that_cannot_start_says_why(any_world: World, tiny_context: Context) -> None:
    frames, actions = tiny_context.frames, tiny_context.actions
    for context, words in (
        (Context(frames[:, :32], actions), r"needs uint8 \(T, 64, 64, 3\)"),
        (Context(frames, actions[:, :5]), r"need \(4, 8\)"),
        (Context(frames, actions[:3]), r"need \(4, 8\)"),
    ):
        with pytest.raises(WorldError, match=words):
            Session(any_world, context, 0)
    with pytest.raises(WorldError, match="not -1"):
        Session(any_world, tiny_context, -1)
    for count in (0, 9):
        with pytest.raises(WorldError, match=f"not {count}"):
            Session(any_world, tiny_context, 0).steps = count
