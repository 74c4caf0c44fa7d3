"""Whether a commit runs beside its tick's decode or after it is nobody's business but the clock's."""

from collections.abc import Callable

import numpy as np
import pytest

from playhead.engine.session import Session, Snapshot
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.world import World, WorldState
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world

WALK = Action(frozenset({"forward"}))


@pytest.fixture(params=[False, True], ids=["pass", "one pass"])
def worlds(request: pytest.FixtureRequest) -> dict[bool, World]:
    """The same world twice: commits beside decodes (True), and after them (False)."""
    found = {flag: make_tiny_world(one_pass=request.param) for flag in (True, False)}
    for flag, world in found.items():
        world.side_by_side = flag
    return found


def wander(ticks: int, seed: int = 0) -> list[Action]:
    rows = np.random.default_rng(seed).integers(0, 2, (ticks, len(BUTTONS)))
    return [Action(frozenset(name for name, held in zip(BUTTONS, row, strict=True) if held)) for row in rows]


def same_state(a: Snapshot, b: Snapshot) -> bool:
    """Whether two snapshots hold the same numbers, bit for bit."""

    def same(x: object, y: object) -> bool:
        if isinstance(x, dict) and isinstance(y, dict):
            return x.keys() == y.keys() and all(same(x[k], y[k]) for k in x)
        if isinstance(x, list) and isinstance(y, list):
            return len(x) == len(y) and all(map(same, x, y))
        return np.array_equal(x, y)  # tensors, arrays and numbers

    return same(vars(a), vars(b))


def test_side_by_side_and_one_after_the_other_are_the_same_dream(
    worlds: dict[bool, World], tiny_context: Context
) -> None:
    beside, after = (Session(worlds[flag], tiny_context, 5) for flag in (True, False))
    for action in wander(40):
        assert np.array_equal(beside.step(action), after.step(action))


def test_a_snapshot_right_after_a_step_holds_its_commit(
    worlds: dict[bool, World], tiny_context: Context
) -> None:
    beside, after = (Session(worlds[flag], tiny_context, 5) for flag in (True, False))
    for action in wander(12):  # further than the window of 6 latents
        beside.step(action), after.step(action)
        assert same_state(beside.snapshot(), after.snapshot())


def test_a_fork_a_restore_and_a_reset_right_after_a_step_wait_for_its_commit(
    worlds: dict[bool, World], tiny_context: Context
) -> None:
    futures = []
    for flag in (True, False):
        session = Session(worlds[flag], tiny_context, 5)
        frames = [session.step(action) for action in wander(8)]
        twin = session.fork()
        snapshot = session.snapshot()
        frames += [twin.step(action) for action in wander(8, seed=1)]
        frames += [twin.restore(snapshot), *(twin.step(action) for action in wander(8, seed=2))]
        frames += [twin.reset(9), *(twin.step(action) for action in wander(8, seed=3))]
        frames += [session.step(action) for action in wander(8, seed=4)]
        futures.append(np.concatenate(frames))
    assert np.array_equal(*futures)


def test_the_way_may_change_from_tick_to_tick(worlds: dict[bool, World], tiny_context: Context) -> None:
    world, other = worlds[True], worlds[False]
    changing, steady = Session(world, tiny_context, 5), Session(other, tiny_context, 5)
    for tick, action in enumerate(wander(20)):
        world.side_by_side = tick % 3 == 0
        assert np.array_equal(changing.step(action), steady.step(action))


def test_two_sessions_of_one_world_stepped_in_turns_do_not_mix_their_commits(
    worlds: dict[bool, World],
) -> None:
    films = []
    for flag in (True, False):
        pair = [Session(worlds[flag], make_tiny_context(seed=seed), seed) for seed in (1, 2)]
        films.append(np.stack([s.step(a) for a in wander(12) for s in pair]))
    assert np.array_equal(*films)


NEXT_CALLS = {
    "step": lambda session: session.step(WALK),
    "finish": Session.finish,
    "snapshot": Session.snapshot,
    "fork": Session.fork,
    "reset": Session.reset,
}


@pytest.mark.parametrize("call", NEXT_CALLS.values(), ids=NEXT_CALLS)
@pytest.mark.parametrize("flag", [True, False], ids=["beside", "after"])
def test_an_error_in_a_commit_surfaces_at_the_next_call(
    flag: bool,
    call: Callable[[Session], object],
    worlds: dict[bool, World],
    tiny_context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(worlds[flag], tiny_context, 5)

    def fail(state: WorldState) -> None:
        raise MemoryError("no room for keys")

    with monkeypatch.context() as patch:
        patch.setattr(worlds[flag], "commit", fail)
        frames = session.step(WALK)  # the frames are there: the player sees them
        assert frames.shape == (1, 64, 64, 3)
        with pytest.raises(MemoryError, match="no room for keys"):
            call(session)
    session.reset()
    assert session.tick == 0


def test_an_error_is_reported_once_and_a_restored_session_plays_on(
    worlds: dict[bool, World], tiny_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, untouched = (Session(worlds[True], tiny_context, 5) for _ in range(2))
    snapshot = session.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(worlds[True], "commit", lambda state: 1 / 0)
        session.step(WALK)
        with pytest.raises(ZeroDivisionError):
            session.finish()
    session.restore(snapshot)
    for action in wander(10):
        assert np.array_equal(session.step(action), untouched.step(action))
