"""What a session promises: its past can be gone back to exactly, and forks never touch one another."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from playhead.engine.session import Session
from playhead.world.context import Context
from playhead.world.errors import WorldError
from playhead.world.world import World
from tests.conftest import make_tiny_context
from tests.engine.walks import TURN, WALK, play, refused


@pytest.fixture
def session(any_world: World, tiny_context: Context) -> Session:
    session = Session(any_world, tiny_context, seed=5)
    for _ in range(7):  # further than the window of 6 latents: the ring has turned over
        session.step(WALK)
    return session


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


def test_what_was_foreseen_is_what_would_have_been(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_session_knows_what_it_plays_and_so_do_its_forks(any_world: World, tiny_context: Context) -> None:
    scene: Any = object()
    session = Session(any_world, tiny_context, 5, scene)
    assert (session.context, session.scene, session.seed, session.tick) == (tiny_context, scene, 5, 0)
    session.step(WALK)
    for twin in (session.fork(), Session.unstarted(any_world, tiny_context, scene)):
        twin.restore(session.snapshot())
        assert (twin.context, twin.scene, twin.seed, twin.tick) == (tiny_context, scene, 5, 1)
        assert np.array_equal(twin.frames, session.frames)
        twin.reset()
        assert np.array_equal(play(twin, TURN, 3), play(Session(any_world, tiny_context, 5), TURN, 3))


def test_a_fork_has_the_frames_that_are_seen_now(session: Session) -> None:
    assert np.array_equal(session.fork().frames, session.frames)
    assert session.snapshot().frames is not None
    again = session.restore(session.snapshot())
    assert again is session.frames and np.array_equal(again, session.snapshot().frames)


def test_a_session_enters_another_context(any_world: World, tiny_context: Context) -> None:
    other, scene = make_tiny_context(seed=1), object()
    session, fresh = Session(any_world, tiny_context, 5), Session(any_world, other, 9)
    play(session, WALK, 3)
    assert np.array_equal(session.enter(other, 9, scene), fresh.frames)
    assert (session.context, session.scene, session.seed, session.tick) == (other, scene, 9, 0)
    assert np.array_equal(play(session, WALK, 5), play(fresh, WALK, 5))
    session.enter(tiny_context, 5)
    assert session.scene is None


def test_a_reset_keeps_the_seed_and_shows_the_end_of_the_context(
    session: Session, any_world: World, tiny_context: Context
) -> None:
    fresh = Session(any_world, tiny_context, 5)
    frames = session.reset()
    assert (session.seed, session.tick) == (5, 0)
    assert frames is session.frames and np.array_equal(frames, fresh.frames)
    assert np.array_equal(play(session, WALK, 3), play(fresh, WALK, 3))


def test_the_first_frame_is_the_last_of_the_past(any_world: World, tiny_context: Context) -> None:
    session = Session(any_world, tiny_context, 5)
    picture = any_world.picture(any_world.encode(tiny_context.frames).numpy())
    for frames in (session.frames, session.reset(8)):
        assert frames.shape == (1, 64, 64, 3) and frames.dtype == np.uint8
        assert np.abs(frames[0].astype(int) - picture).max() <= 1  # which is decoded all at once


def test_without_a_past_the_first_frame_is_black_however_much_was_played(
    any_world: World, tiny_context: Context
) -> None:
    session = Session(any_world, Context(tiny_context.frames[:0], tiny_context.actions[:0]), 5)
    for _ in range(2):
        assert session.frames.shape == (1, 64, 64, 3) and not session.frames.any()
        assert session.step(WALK).any()
        assert session.reset() is session.frames


def test_every_seed_of_64_bits_is_one_and_no_other(session: Session) -> None:
    for seed in (0, 1, 2**64 - 1):
        session.reset(seed)
        assert session.seed == seed
    for seed in (-1, 2**64):
        with refused(WorldError, f"a seed is a whole number from 0 to 2^64 - 1, not {seed}"):
            session.reset(seed)
        assert session.seed == 2**64 - 1


def test_frames_that_were_handed_over_stay_as_they_are(session: Session) -> None:
    first = session.step(WALK)
    before = first.copy()
    latents = session.latents
    kept = latents.copy()
    session.step(TURN)
    assert np.array_equal(first, before) and np.array_equal(latents, kept)


def test_a_tick_whose_latents_are_known_is_played_again_bit_for_bit(
    any_world: World, tiny_context: Context
) -> None:
    player, again = (Session(any_world, tiny_context, 5) for _ in range(2))
    for action in (WALK, TURN, WALK):
        frames = player.step(action)
        assert np.array_equal(again.retrace(action, player.latents), frames)
        assert again.tick == player.tick and np.array_equal(again.latents, player.latents)
    assert np.array_equal(play(player, TURN, 8), play(again, TURN, 8))


def test_latents_alone_leave_the_frames_as_they_were(any_world: World, tiny_context: Context) -> None:
    player, again = (Session(any_world, tiny_context, 5) for _ in range(2))
    shown = again.frames
    for action in (WALK, TURN):
        player.step(action)
        assert again.retrace(action, player.latents, decode=False) is shown and again.frames is shown
    assert again.tick == 2
    for _ in range(any_world.decoder_span + 1):  # after so many, the next one is right
        frames = player.step(WALK)
        last = again.retrace(WALK, player.latents)
    assert np.array_equal(frames, last)


def test_where_the_past_is_known_nothing_is_dreamed(tiny_world: World, tiny_context: Context) -> None:
    """Other latents than a dream's are taken as they are."""
    session = Session(tiny_world, tiny_context, 5)
    latents = np.random.default_rng(0).standard_normal((1, 8, 4, 4)).astype(np.float32)
    session.retrace(WALK, latents)
    assert np.array_equal(session.latents, latents)


def test_a_commit_that_fails_is_told_until_the_session_goes_back(
    tiny_world: World, tiny_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_world, tiny_context, 5)
    kept = session.snapshot()
    usual = play(session, WALK, 2)

    def fail(state: object) -> None:
        raise RuntimeError("no memory is left")

    for side_by_side in (True, False):
        monkeypatch.setattr(tiny_world, "side_by_side", side_by_side)
        for back in (session.reset, lambda: session.restore(kept)):
            session.finish()
            with monkeypatch.context() as broken:
                broken.setattr(tiny_world, "commit", fail)
                session.step(WALK)
                for go_on in (session.finish, session.snapshot, lambda: session.step(WALK), session.finish):
                    with pytest.raises(RuntimeError, match="no memory is left"):
                        go_on()
            back()
            assert np.array_equal(play(session, WALK, 2), usual)


def test_a_tick_is_committed_once_however_often_it_is_finished(
    tiny_world: World, tiny_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, commits, real = Session(tiny_world, tiny_context, 5), [], tiny_world.commit
    monkeypatch.setattr(tiny_world, "commit", lambda state: (commits.append(state), real(state)))
    for side_by_side in (True, False):
        monkeypatch.setattr(tiny_world, "side_by_side", side_by_side)
        commits.clear()
        session.finish()
        assert not commits
        session.step(WALK)
        session.finish()
        session.finish()
        assert commits == [session._state]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_commit_runs_beside_the_decode_where_that_leaves_cores_free(
    any_world: World, tiny_context: Context, monkeypatch: pytest.MonkeyPatch, side_by_side: bool
) -> None:
    """Not where the last denoise pass commits: then nothing is left that would take time."""
    session, threads, real = Session(any_world, tiny_context, 5), [], any_world.commit

    def commit(state: Any) -> None:
        threads.append(threading.current_thread().name.rpartition("_")[0])
        real(state)

    monkeypatch.setattr(any_world, "commit", commit)
    monkeypatch.setattr(any_world, "side_by_side", side_by_side)
    session.step(WALK)
    session.finish()
    assert threads == ["commit" if side_by_side and not any_world.last_pass_commits else ""]


def test_a_session_that_has_not_started_has_nothing_to_commit(
    tiny_world: World, tiny_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[object] = []
    monkeypatch.setattr(tiny_world, "commit", commits.append)
    Session.unstarted(tiny_world, tiny_context).finish()
    assert not commits


@pytest.mark.parametrize("recorded", [False, True])
def test_warming_up_plays_all_that_is_recorded_twice_and_ends_at_the_start(
    any_world: World, tiny_context: Context, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """Where graphs are recorded: each slot of the ring, while it fills and when it is full."""
    session = Session(any_world, tiny_context, 5)
    done: list[str] = []
    monkeypatch.setattr(session._state.graphs, "enabled", recorded)
    monkeypatch.setattr(session, "step", lambda action: done.append(sorted(action.buttons) or "step"))
    monkeypatch.setattr(session, "reset", lambda: done.append("reset"))
    session.warm_up()
    sampling = any_world.config.sampling
    once = ["step"] * (sampling.reach + sampling.window if recorded else 2) + ["reset"]
    assert done == once * (2 if recorded else 1)
