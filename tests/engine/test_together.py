"""Sessions stepped together dream what each would alone, whoever else is there."""

import numpy as np

from playhead.engine import together
from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.world.action import Action
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world


def actions(draws) -> Action:
    return Action(frozenset(b for b in BUTTONS if draws.random() < 0.5))


def test_company_changes_no_bit_at_different_ticks_scenes_and_seeds(any_world):
    world, draws = any_world, np.random.default_rng(0)
    crowd = [Session(world, make_tiny_context(seed=n), n) for n in range(4)]
    for n, session in enumerate(crowd):
        for _ in range(3 * n):  # some caches are full, some are not
            session.step(actions(draws))
    alone = [session.fork() for session in crowd]
    for tick in range(12):
        who = [n for n in range(4) if tick % (n + 1) == 0]  # never the same company for long
        held = [actions(draws) for _ in who]
        frames = step_together([crowd[n] for n in who], held)
        assert np.array_equal(frames, [alone[n].step(a) for n, a in zip(who, held, strict=True)])


def test_where_a_joint_pass_would_change_a_bit_none_is_used(monkeypatch):
    world = make_tiny_world()
    pair = [Session(world, make_tiny_context(seed=n), n) for n in range(2)]
    alone = [session.fork() for session in pair]
    real = together._joint_step
    calls = []

    def differing(world, sessions, held):
        calls.append(1)
        frames = real(world, sessions, held)
        return [frames[0] ^ 1, *frames[1:]]

    monkeypatch.setattr(together, "_joint_step", differing)
    for _ in range(3):
        frames = step_together(pair, [Action(), Action()])
        assert np.array_equal(frames, [session.step(Action()) for session in alone])
    assert calls == [1]
