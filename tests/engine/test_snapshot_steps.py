"""A snapshot holds the steps a tick too: they change the numbers."""

import numpy as np

from engine.session import Session
from world.action import Action
from world.context import Context
from world.world import World


def test_a_snapshot_and_a_fork_keep_the_steps(tiny_world: World, tiny_context: Context) -> None:
    session = Session(tiny_world, tiny_context, 3)
    session.steps = 1
    session.step(Action())
    snapshot, twin = session.snapshot(), session.fork()
    after = session.step(Action(frozenset({"forward"})))
    session.steps = 2
    session.restore(snapshot)
    assert session.steps == twin.steps == 1
    assert np.array_equal(session.step(Action(frozenset({"forward"}))), after)
    assert np.array_equal(twin.step(Action(frozenset({"forward"}))), after)
