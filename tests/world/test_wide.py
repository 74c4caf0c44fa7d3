"""Sessions in passes of one width dream what they would alone, but for rounding; company changes no bit."""

import gc

import numpy as np
import pytest
import torch

from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.world.action import Action
from playhead.world.errors import WorldError
from playhead.world.noise import device_noises, noise
from playhead.world.wide import frame_blocks
from playhead.world.wide import width_choice as choice
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world

TICKS = 40  # more than window and far memory reach back


def make_world(width: int = 0, steps: tuple[float, ...] = (1000.0,)):
    world = make_tiny_world(one_pass=True, rest_after=2, steps=steps, lay_out=False)
    world.widen(width)
    return world


def actions(draws: np.random.Generator, tick: int) -> Action:
    """Nothing for some ticks, so that sessions come to rest."""
    return Action() if tick % 12 > 6 else Action(frozenset(b for b in BUTTONS if draws.random() < 0.3))


def crowd(world, count: int) -> list[Session]:
    return [Session(world, make_tiny_context(seed=n), 2**63 + n) for n in range(count)]


@pytest.mark.parametrize("steps", [(1000.0,), (1000.0, 500.0)], ids=["one step", "two steps"])
def test_wide_passes_dream_what_plain_ones_do_at_ticks_of_their_own(steps) -> None:
    plain, wide = (
        crowd(make_world(0, steps), 4),
        crowd(make_world(3, steps), 4),
    )  # the fourth in a second pass
    draws = np.random.default_rng(0)
    for tick in range(TICKS):
        who = [n for n in range(4) if tick % (n + 1) == 0]
        held = [actions(draws, tick) for _ in who]
        found = Session.step_joined([wide[n] for n in who], held)
        for n, action, frames in zip(who, held, found, strict=True):
            wanted = plain[n].step(action)
            assert frames.std() > 1 and np.abs(wanted.astype(int) - frames).max() <= 1
            assert np.allclose(plain[n].latents, wide[n].latents, atol=1e-3)


def test_company_and_the_row_change_no_bit() -> None:
    world, draws = make_world(4), np.random.default_rng(1)
    others = crowd(world, 3)
    alone = [session.fork() for session in others]
    assert all(session.joins for session in others)
    for tick in range(TICKS):
        who = [n for n in range(3) if tick % (n + 1) == 0]
        held = [actions(draws, tick) for _ in who]
        frames = step_together([others[n] for n in who], held)
        assert np.array_equal(frames, [alone[n].step(a) for n, a in zip(who, held, strict=True)])
    assert choice.is_exact(world, 4)


@pytest.mark.parametrize("room", [0, 2**30], ids=["copied", "handed out"])
def test_frames_are_the_callers_own_for_as_long_as_they_are_kept(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_blocks, "MOST", room)
    world, draws = make_world(3), np.random.default_rng(4)
    sessions, kept = crowd(world, 2), []
    for tick in range(8):
        found = step_together(sessions, [actions(draws, tick) for _ in sessions])
        kept += [(frames, frames.copy()) for frames in found]
        found[0][:] = 0
        kept[-2][1][:] = 0
    assert all(np.array_equal(frames, wanted) for frames, wanted in kept)
    blocks = {id(frames.base) for frames, _ in kept if frames.base is not None}
    assert len(blocks) == (2 if not room else 8), "of the last of many passes each has a copy"


def test_a_snapshot_goes_on_bit_for_bit_in_another_row() -> None:
    world, draws = make_world(2), np.random.default_rng(2)
    held = [actions(draws, tick) for tick in range(TICKS)]
    first, second = crowd(world, 2)
    kept, frames = [], []
    for action in held:
        kept.append(first.snapshot())
        frames.append(first.step(action))
    for tick in (3, 17, 33):
        second.restore(kept[tick])
        for later in range(tick, TICKS):
            assert np.array_equal(second.step(held[later]), frames[later])
    again = Session(world, make_tiny_context(seed=0), 2**63)
    for tick, action in enumerate(held[:8]):
        assert np.array_equal(again.retrace(action, first.latents), frames[tick])


def test_rows_are_given_back_and_more_sessions_find_more_rows() -> None:
    world = make_world(2)
    assert world.wide.room == 2
    sessions = crowd(world, 3)
    assert world.wide.room == 1  # of a second pass
    del sessions[1]
    gc.collect()
    assert world.wide.room == 2
    newcomer = Session(world, make_tiny_context(seed=9), 9)
    other = Session(make_world(2), make_tiny_context(seed=9), 9)
    for _ in range(3):  # nothing of who had the row before is left
        assert np.array_equal(newcomer.step(Action()), other.step(Action()))


def test_a_world_that_cannot_says_why() -> None:
    with pytest.raises(
        WorldError, match="`tiny` cannot share passes of one width: the world commits by a pass"
    ):
        make_tiny_world().widen(2)
    assert make_world().why_not_wide == ""


def test_noise_drawn_for_sessions_at_ticks_of_their_own_is_that_of_each() -> None:
    seeds, ticks = [0, 2**63 + 5, 2**64 - 1], [0, 3, 2**40]
    bits = torch.tensor([s - 2**64 if s >= 2**63 else s for s in seeds])
    drawn = device_noises(bits, torch.tensor(ticks), 1, (2, 3, 5))
    wanted = [noise(seed, tick, 1, (2, 3, 5)) for seed, tick in zip(seeds, ticks, strict=True)]
    assert torch.allclose(drawn, torch.stack(wanted), atol=1e-6)


@pytest.mark.parametrize(
    ("one", "together", "exact", "width", "said"),
    [
        (1.0, 1.5, True, 2, "1500.0 ms for a pass of 2 sessions, 1000.0 for a tick of one alone"),
        (1.0, 2.5, True, 0, "2500.0 ms for a pass"),
        (1.0, 1.5, False, 0, "one after the other: in passes of 2 company shows"),
    ],
)
def test_passes_are_shared_where_that_is_measured_to_be_faster_and_exact(
    monkeypatch, one, together, exact, width, said
) -> None:
    world, played = make_world(), []

    def timed(work, count, warm):
        work()  # both ways do run
        played.append(work)
        return (one, together)[len(played) - 1]

    monkeypatch.setattr(choice, "least_seconds", timed)
    monkeypatch.setattr(choice, "is_exact", lambda world, width: exact)
    found = choice.measure(world, 2)
    assert found.width == width and said in found.finding
