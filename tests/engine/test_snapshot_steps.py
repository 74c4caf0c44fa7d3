"""A snapshot holds the steps a tick too: they change the numbers."""

import numpy as np

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.world import World


def test_a_snapshot_and_a_fork_keep_the_steps(any_world: World, tiny_context: Context) -> None:
    session = Session(any_world, tiny_context, 3)
    other = session.steps
    session.steps = 3 - other  # 1 in place of 2, or 2 in place of 1
    session.step(Action())
    snapshot, twin = session.snapshot(), session.fork()
    after = session.step(Action(frozenset({"forward"})))
    session.steps = other
    session.restore(snapshot)
    assert session.steps == twin.steps == 3 - other
    assert np.array_equal(session.step(Action(frozenset({"forward"}))), after)
    assert np.array_equal(twin.step(Action(frozenset({"forward"}))), after)
