"""Sessions in lockstep: each client's actions, its frames, and nobody else's."""

import numpy as np

from playhead.engine.bridge.wire import protocol as p
from playhead.engine.session import Session
from playhead.world.action import Action
from tests.conftest import BUTTONS, SEED, make_tiny_context


def test_clients_that_step_at_the_same_time_see_what_each_would_alone(connect, tiny_world):
    clients = [connect(f"client {n}") for n in range(4)]
    opened = [client.ask(p.OpenRequest(seed=SEED + n), p.OpenReply)[0] for n, client in enumerate(clients)]
    alone = [Session(tiny_world, make_tiny_context(), SEED + n) for n in range(4)]
    draws = np.random.default_rng(0)
    for _ in range(20):
        held = [Action(frozenset(b for b in BUTTONS if draws.random() < 0.5)) for _ in clients]
        ids = [
            client.send(p.StepRequest(session=found.session, actions=[action]))
            for client, found, action in zip(clients, opened, held, strict=True)
        ]
        for client, id, session, action in zip(clients, ids, alone, held, strict=True):
            assert np.array_equal(client.answer(id, p.StepReply)[1], session.step(action))


def test_receipts_say_in_which_ticks_the_actions_were_applied(connect):
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    first = client.send(p.StepRequest(session=session, actions=[Action()] * 3, frames="last"))
    second = client.send(p.StepRequest(session=session, actions=[Action()] * 2, frames="none"))
    receipt, frames = client.answer(first, p.StepReply)
    assert (receipt.first, receipt.tick, frames.shape, receipt.tick_seconds > 0) == (
        1,
        3,
        (1, 64, 64, 3),
        True,
    )
    receipt, frames = client.answer(second, p.StepReply)
    assert (receipt.first, receipt.tick, frames) == (4, 5, None)
