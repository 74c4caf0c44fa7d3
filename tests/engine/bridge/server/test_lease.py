"""Who controls a session: one at a time, handed over, taken back by its owner, lost with the connection."""

import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.lease import Lease
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import LOCAL, BridgeError
from playhead.world.action import Action
from tests.engine.bridge.conftest import until, wants

FORWARD = Action(frozenset({"forward"}))


def step(client: Client, session: str) -> p.StepReply:
    return client.ask(p.StepRequest(session=session, actions=[FORWARD]), p.StepReply)[0]


def refused(code: str):
    return pytest.raises(BridgeError, check=lambda error: error.code == code)


def test_only_who_controls_a_session_plays_it_and_everybody_may_look(connect):
    owner, other = connect("owner"), connect("other")
    opened, _ = owner.ask(p.OpenRequest(), p.OpenReply)
    assert opened.in_control
    seen, frames = other.ask(p.AttachRequest(session=opened.session), p.OpenReply)
    assert not seen.in_control and frames.shape == seen.shape
    for request in (
        p.StepRequest(session=opened.session, actions=[FORWARD]),
        p.ResetRequest(session=opened.session),
        p.SnapshotRequest(session=opened.session),
        p.ForkRequest(session=opened.session),
        p.TuneRequest(session=opened.session, steps=1),
        p.CloseRequest(session=opened.session),
    ):
        with refused("not_in_control"):
            other.ask(request, p.Message)
    assert step(owner, opened.session).tick == 1


def test_the_control_is_asked_for_granted_and_taken_back(connect):
    owner, other, third = connect("owner"), connect("other"), connect("third")
    session = owner.ask(p.OpenRequest(), p.OpenReply)[0].session
    asked = other.ask(wants(session, "take"), p.ControlReply)[0]
    assert (asked.in_control, asked.holder, asked.asking) == (False, "owner", "other")
    assert until(owner, p.ControlReply, asking="other").in_control
    assert third.ask(wants(session, "take"), p.ControlReply)[0].asking == "other"  # who was first
    with refused("refused"):
        third.ask(wants(session, "grant"), p.ControlReply)

    assert owner.ask(wants(session, "grant"), p.ControlReply)[0].holder == "other"
    assert until(other, p.ControlReply, in_control=True)
    assert step(other, session).tick == 1
    with refused("not_in_control"):
        step(owner, session)
    assert owner.ask(wants(session, "take"), p.ControlReply)[0].in_control  # without being let
    until(other, p.ControlReply, in_control=False)
    with refused("not_in_control"):
        step(other, session)


def test_what_is_released_goes_to_the_one_who_asks(connect):
    owner, other = connect("owner"), connect("other")
    session = owner.ask(p.OpenRequest(), p.OpenReply)[0].session
    other.ask(wants(session, "take"), p.ControlReply)
    owner.ask(wants(session, "release"), p.ControlReply)
    assert step(other, session).tick == 1
    other.ask(wants(session, "release"), p.ControlReply)
    assert step(owner, session).tick == 2


def test_the_control_is_lost_with_the_connection_and_its_owner_comes_back_to_it(server, connect):
    owner, other = connect("owner"), connect("other")
    session = owner.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(owner, session)
    other.ask(wants(session, "take"), p.ControlReply)
    token = owner.welcome.token
    owner.close()
    assert until(other, p.ControlReply, in_control=True)
    assert step(other, session).tick == 2
    again = Client(server.address, "owner", resume=token)
    try:
        assert again.welcome.token == token
        assert not again.ask(p.AttachRequest(session=session), p.OpenReply)[0].in_control
        assert again.ask(wants(session, "take"), p.ControlReply)[0].in_control
        assert step(again, session).tick == 3
    finally:
        again.close()


def test_a_second_hello_makes_no_second_client(server, connect):
    client = connect("one")
    again, _ = client.ask(p.HelloRequest(protocol=[p.VERSION], client="two"), p.WelcomeReply)
    assert again.token == client.welcome.token and len(server.connections.clients) == 1


def test_who_comes_back_by_another_connection_takes_everything_along(server, connect):
    """Also while the old connection seems to be alive, as it does where a cable was pulled."""
    first = connect("first")
    session = first.ask(p.OpenRequest(), p.OpenReply)[0].session
    second = Client(server.address, "first", resume=first.welcome.token)
    try:
        assert step(second, session).tick == 1
        with refused("hello_first"):
            step(first, session)
    finally:
        second.close()


def test_a_lease_of_a_window_goes_back_to_the_person_at_it():
    lease = Lease(LOCAL, LOCAL)
    assert not lease.take("program") and lease.grant(LOCAL) and lease.holder == "program"
    lease.take("second")
    lease.release("program")
    assert (lease.holder, lease.asking) == (LOCAL, "second")
    lease.release("second")
    assert not lease.grant(LOCAL)


def test_a_control_that_nobody_has_is_anybodys_and_one_held_can_only_be_asked_for():
    lease = Lease("owner", "")
    assert lease.take("first") and lease == Lease("owner", "first")
    assert lease.take("first") and lease == Lease("owner", "first")
    assert not lease.take("second") and lease == Lease("owner", "first", "second")
    assert not lease.take("third") and lease == Lease("owner", "first", "second")


def test_who_has_it_asks_no_more_and_whoever_else_asked_still_does():
    asked = Lease("owner", "holder", "owner")
    assert asked.take("owner") and asked == Lease("owner", "owner")
    asked = Lease("owner", "holder", "other")
    assert asked.take("owner") and asked == Lease("owner", "owner", "other")
    assert asked.take("owner") and asked == Lease("owner", "owner", "other")


@pytest.mark.parametrize(
    ("before", "client", "after"),
    [
        (Lease("owner", "holder", "asking"), "asking", Lease("owner", "holder")),
        (Lease("owner", "holder", "asking"), "holder", Lease("owner", "asking")),
        (Lease("owner", "holder"), "holder", Lease("owner", "")),
        (Lease(LOCAL, "holder", "asking"), "holder", Lease(LOCAL, LOCAL, "asking")),
        (Lease(LOCAL, "holder", "asking"), "asking", Lease(LOCAL, "holder")),
    ],
)
def test_what_one_lets_go_of_goes_back_to_the_person_here_or_over_to_who_asks(before, client, after):
    assert before.release(client) and before == after


def test_who_has_nothing_and_asks_for_nothing_lets_go_of_nothing():
    lease = Lease("owner", "holder", "asking")
    assert not lease.release("owner") and not lease.release("other")
    assert not lease.grant("asking") and not lease.grant("other")
    assert lease == Lease("owner", "holder", "asking")


def test_the_holder_and_the_owner_hand_over_what_somebody_asks_for():
    for client in ("holder", "owner"):
        lease = Lease("owner", "holder", "asking")
        assert lease.grant(client) and lease == Lease("owner", "asking")
        assert not lease.grant(client) and lease == Lease("owner", "asking")  # nobody asks any more


def test_those_concerned_are_clients():
    assert Lease("a", "b", "c").concerned == {"a", "b", "c"}
    assert Lease("a", "a").concerned == {"a"} and Lease(LOCAL, "", "c").concerned == {"c"}
