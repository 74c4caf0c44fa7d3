"""A client in the server's process is a client like any other: limits, leases and refusals."""

import numpy as np
import pytest

from playhead.engine.bridge.server.in_process import InProcessClient
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import wait_for, wants

FORWARD = Action(frozenset({"forward"}))


def test_it_is_answered_as_one_over_a_socket_is(server, connect):
    far = connect()
    opened, start = far.ask(p.OpenRequest(), p.OpenReply)
    _, frames = far.ask(p.StepRequest(session=opened.session, actions=[FORWARD] * 3), p.StepReply)
    with InProcessClient(server, "near", rate=1000) as near:
        mine, same = near.ask(p.OpenRequest(), p.OpenReply)
        assert np.array_equal(same, start) and mine.in_control
        _, made = near.ask(p.StepRequest(session=mine.session, actions=[FORWARD] * 3), p.StepReply)
        assert np.array_equal(made, frames)
        with pytest.raises(BridgeError) as refused:
            near.ask(p.StepRequest(session=opened.session, actions=[FORWARD]), p.StepReply)
        assert refused.value.code == "not_in_control"
        with pytest.raises(BridgeError, match="no such session"):
            near.ask(p.ObserveRequest(session="nothing"), p.ObserveReply)


def test_what_it_controls_is_free_once_it_has_gone(server, connect):
    far = connect()
    with InProcessClient(server, "near", rate=1000) as near:
        session = near.ask(p.OpenRequest(), p.OpenReply)[0].session
        assert not far.ask(wants(session, "take"), p.ControlReply)[0].in_control
        assert far.ask(wants(session, "take"), p.ControlReply)[0].holder == "near"
    wait_for(lambda: far.ask(wants(session, "take"), p.ControlReply)[0].in_control)


def test_it_asks_no_faster_than_others_may(server):
    with InProcessClient(server, "near", rate=5) as near:
        with pytest.raises(BridgeError) as refused:
            for _ in range(100):
                near.ask(p.PingRequest(), p.PongReply)
        assert refused.value.code == "rate"


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(server):
    with InProcessClient(server, "near", rate=1000, patience=0.2) as near:
        server.obey = lambda connection, request: None
        with pytest.raises(PlayheadError, match="does not answer"):
            near.ask(p.PingRequest(), p.PongReply)
