"""What a server lends out ends somewhere, with a sentence, and others do not notice."""

import gc
import time
import weakref

import numpy as np
import pytest
import zmq

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits, RateLimit
from playhead.engine.bridge.server.registry import session_bytes
from playhead.engine.bridge.server.session_past import INTERVAL
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.conftest import BUTTONS, SEED, make_tiny_context
from tests.engine.bridge.conftest import serving


@pytest.fixture
def limited(tiny_world, tiny_scene, request):
    with serving(tiny_world, tiny_scene, Limits(**request.param)) as server:
        client = Client(server.address, "test", patience=20)
        yield server, client
        client.close()


def limits(**chosen):
    return pytest.mark.parametrize("limited", [chosen], indirect=True, ids=lambda found: next(iter(found)))


@limits(sessions=2)
def test_sessions_end_somewhere_and_closing_one_makes_room(limited):
    server, client = limited
    first = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    client.ask(p.ForkRequest(session=first), p.OpenReply)
    for request in (p.OpenRequest(), p.ForkRequest(session=first), p.BranchRequest(session=first, tick=0)):
        with pytest.raises(BridgeError, match="2 sessions are open") as error:
            client.ask(request, p.OpenReply)
        assert error.value.code == "limit"
    client.ask(p.CloseRequest(session=first), p.DoneReply)
    client.ask(p.OpenRequest(), p.OpenReply)
    assert len(server.sessions) == 2


@limits(sessions=1, idle=1.5)
def test_a_session_waits_for_its_client_as_long_as_it_was_promised_and_then_makes_room(limited):
    server, client = limited
    gone = Client(server.address, "gone", patience=20)
    session = gone.ask(p.OpenRequest(), p.OpenReply)[0].session
    gone.close()
    while server.connections.clients[gone.welcome.token].connection is not None:
        client.ask(p.PingRequest(), p.PongReply)
    with pytest.raises(BridgeError, match="1 sessions are open"):
        client.ask(p.OpenRequest(), p.OpenReply)
    back = Client(server.address, "gone", patience=20, resume=gone.welcome.token)
    back.ask(p.StepRequest(session=session, actions=[Action()]), p.StepReply)
    back.close()
    while server.sessions:
        client.wait(0.05)
    client.ask(p.OpenRequest(), p.OpenReply)


@limits(sessions=4)
def test_what_a_session_holds_goes_with_it_at_once(limited):
    """Its caches may be gigabytes, which cannot wait until somebody looks for garbage."""
    server, client = limited
    gc.disable()
    try:
        session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
        client.ask(p.StepRequest(session=session, actions=[Action()] * 2), p.StepReply)
        client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)
        held = weakref.ref(server.sessions.find(session))
        client.ask(p.CloseRequest(session=session), p.DoneReply)
        for _ in range(1000):
            if held() is None:
                break
            client.wait(0.01)
        assert held() is None
    finally:
        gc.enable()


@limits(memory=1, snapshots=1000)
def test_memory_ends_somewhere_for_snapshots_and_sessions_alike(limited, tiny_world):
    _, client = limited
    fits = 2**20 // session_bytes(tiny_world)
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    for _ in range(fits - 1):
        client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)
    for request in (p.SnapshotRequest(session=session), p.OpenRequest(), p.ForkRequest(session=session)):
        with pytest.raises(BridgeError, match="1 MB for sessions and snapshots") as error:
            client.ask(request, p.SnapshotReply)
        assert error.value.code == "limit"
    client.ask(p.StepRequest(session=session, actions=[Action()]), p.StepReply)


@limits(snapshots=3)
def test_of_too_many_snapshots_the_oldest_go(limited):
    _, client = limited
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    names = [client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot for _ in range(4)]
    with pytest.raises(BridgeError, match="no snapshot") as error:
        client.ask(p.RestoreRequest(session=session, snapshot=names[0]), p.ObserveReply)
    assert error.value.code == "unknown_snapshot"
    client.ask(p.RestoreRequest(session=session, snapshot=names[1]), p.ObserveReply)


@limits(rate=50)
def test_too_many_requests_are_refused_by_their_id_and_others_are_served(limited):
    server, client = limited
    ids = [client.send(p.PingRequest()) for _ in range(300)]
    answers = [client.receive(20)[0] for _ in ids]
    assert [a.id for a in answers] == ids
    refused = [a for a in answers if isinstance(a, p.ErrorReply)]
    assert refused and {a.code for a in refused} == {"rate"} and isinstance(answers[0], p.PongReply)
    other = Client(server.address, "other", patience=20)
    other.ask(p.PingRequest(), p.PongReply)
    other.close()


@limits(idle=1.0)
def test_unused_sessions_end_and_their_clients_are_told(limited):
    server, client = limited
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    busy = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    loop = server.sessions.find(session).loop
    told = None
    while told is None:
        client.ask(p.ObserveRequest(session=busy), p.ObserveReply)  # this one is used
        client.wait(0.05)
        told = next((push for push in client.pushes if isinstance(push, p.EndedPush)), None)
    assert (told.session, told.reason) == (session, "nobody has used it for 1 seconds")
    with pytest.raises(BridgeError, match="expired"):
        client.ask(p.ObserveRequest(session=session), p.ObserveReply)
    assert loop.wait(20)


def test_a_request_that_is_too_long_ends_its_connection_and_no_other(server, connect):
    good, bad = connect(), connect(patience=2)
    session = bad.ask(p.OpenRequest(), p.OpenReply)[0].session
    bad.socket.send(b"x" * (p.MAX_REQUEST + 1))
    with pytest.raises(PlayheadError):  # another connection, which has not said hello
        Client.ask(bad, p.ObserveRequest(session=session), p.ObserveReply)
    good.ask(p.PingRequest(), p.PongReply)
    bad.ask(p.HelloRequest(protocol=[p.VERSION], client="again", resume=bad.welcome.token), p.WelcomeReply)
    bad.ask(p.StepRequest(session=session, actions=[Action()]), p.StepReply)


@limits(unread=2**20, rate=1_000_000)
def test_a_client_that_reads_nothing_is_cut_off_and_its_session_waits_for_it(limited):
    server, client = limited
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    token = client.welcome.token
    with zmq.Context() as context, context.socket(zmq.DEALER) as lazy:
        lazy.linger, lazy.rcvhwm, lazy.rcvbuf = 0, 2, 4096
        lazy.connect(server.address)
        lazy.send(p.encode(p.HelloRequest(protocol=[p.VERSION], client="lazy", resume=token)))
        step = p.encode(p.StepRequest(session=session, actions=[Action()] * 64))
        other = Client(server.address, "other", patience=20)
        while server.connections.clients[token].connection is not None:
            lazy.send(step)
            other.ask(p.PingRequest(), p.PongReply)
        other.close()
    again = Client(server.address, "lazy", patience=20, resume=token)
    assert again.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick >= 64
    again.close()


def test_nothing_is_granted_by_a_wrong_request(connect):
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    for request, code in (
        (p.OpenRequest(world="nowhere"), "unknown_world"),
        (p.OpenRequest(scene="../../etc"), "unknown_scene"),
        (p.OpenRequest(steps=99), "bad_value"),
        (p.OpenRequest(seed=-1), "bad_value"),
        (p.ResetRequest(session=session, scene="nowhere"), "unknown_scene"),
        (p.ResetRequest(session=session, seed=-5), "bad_value"),
        (p.StepRequest(session=session, actions=[Action(), Action(frozenset({"fly"}))]), "bad_action"),
        (p.StepRequest(session=session, actions=[Action(frozenset(), {"look": 0.5})]), "bad_action"),
        (p.BranchRequest(session=session, tick=9), "bad_value"),
        (p.RestoreRequest(session=session, snapshot="nothing"), "unknown_snapshot"),
        (p.ObserveRequest(session="nothing"), "unknown_session"),
        (p.HelloRequest(protocol=[99], client="new"), "protocol"),
    ):
        with pytest.raises(BridgeError) as error:
            client.ask(request, p.Message)
        assert error.value.code == code
    assert client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick == 0


def test_branch_fork_and_snapshots_dream_what_their_past_says(connect, tiny_world):
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    draws = np.random.default_rng(0)
    names = tiny_world.config.action.buttons
    held = [Action(frozenset(n for n in names if draws.random() < 0.5)) for _ in range(12)]
    _, frames = client.ask(p.StepRequest(session=session, actions=held[:5]), p.StepReply)
    kept = client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot
    _, rest = client.ask(p.StepRequest(session=session, actions=held[5:]), p.StepReply)
    alone = Session(tiny_world, make_tiny_context(), SEED)
    assert np.array_equal(np.concatenate([frames, rest]), [alone.step(action)[0] for action in held])
    branch = client.ask(p.BranchRequest(session=session, tick=5), p.OpenReply)[0]
    assert (branch.tick, branch.in_control) == (5, True)
    client.ask(p.RestoreRequest(session=session, snapshot=kept), p.ObserveReply)
    fork = client.ask(p.ForkRequest(session=session), p.OpenReply)[0]
    for twin in (session, branch.session, fork.session):
        again = client.ask(p.StepRequest(session=twin, actions=held[5:]), p.StepReply)[1]
        assert np.array_equal(again, rest)
    late = client.ask(p.BranchRequest(session=fork.session, tick=7), p.OpenReply)[0]
    again = client.ask(p.StepRequest(session=late.session, actions=held[7:]), p.StepReply)[1]
    assert np.array_equal(again, rest[2:])


def test_an_allowance_fills_up_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    allowance = RateLimit(4)
    assert [allowance.take() for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] = 0.5
    assert [allowance.take() for _ in range(3)] == [True, True, False]


class Slow:
    """A session's world that takes its time for a tick."""

    def __init__(self, monkeypatch, seconds: float) -> None:
        self.played = 0
        step = Session.step

        def slowly(session: Session, action: Action) -> np.ndarray:
            self.played += 1
            time.sleep(seconds)
            return step(session, action)

        monkeypatch.setattr(Session, "step", slowly)


def long_past(client: Client, ticks: int) -> str:
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    for _ in range(ticks // 50):
        client.ask(p.StepRequest(session=session, actions=[Action()] * 50, frames="none"), p.StepReply)
    return session


def test_branches_of_a_long_past_hold_up_nobody_else(connect, monkeypatch):
    greedy, other = connect("greedy"), connect("other")
    session = long_past(greedy, 100)
    Slow(monkeypatch, 0.02)
    asked = [greedy.send(p.BranchRequest(session=session, tick=60)) for _ in range(7)]
    for _ in range(3):  # each after at most one slice of the other's
        other.ask(p.OpenRequest(), p.OpenReply)
    answered = [reply for reply in iter(lambda: greedy.receive(0), None) if reply[0].id in asked]
    assert not answered
    first, *_ = [greedy.answer(id, p.OpenReply)[0] for id in asked]
    assert first.tick == 60


def test_what_was_asked_for_is_given_up_when_whoever_asked_is_gone(server, connect, monkeypatch):
    greedy = connect("greedy")
    session = long_past(greedy, 50)
    slow = Slow(monkeypatch, 0.05)
    for _ in range(7):
        greedy.send(p.BranchRequest(session=session, tick=50))
    while not slow.played:
        time.sleep(0.01)
    greedy.close()
    other = connect("other")
    other.ask(p.OpenRequest(), p.OpenReply)
    while server.opener.opening:
        other.ask(p.PingRequest(), p.PongReply)
    assert slow.played < 300  # of 350, which take 17 seconds: a busy machine notices late who is gone
    assert len(server.sessions) == 2


def test_a_server_ends_at_once_in_the_middle_of_a_long_branch(tiny_world, tiny_scene, monkeypatch):
    with serving(tiny_world, tiny_scene) as server:
        client = Client(server.address, "test", patience=20)
        session = long_past(client, 50)
        slow = Slow(monkeypatch, 0.1)
        client.send(p.BranchRequest(session=session, tick=50))
        while not slow.played:
            time.sleep(0.01)
    assert slow.played < 10  # of 50
    client.close()


def test_a_branch_costs_the_ticks_since_the_last_snapshot_of_its_past(connect, monkeypatch):
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    draws = np.random.default_rng(0)
    frames = []
    for _ in range(4 * INTERVAL):
        held = Action(frozenset(b for b in BUTTONS if draws.random() < 0.5))
        frames.append(client.ask(p.StepRequest(session=session, actions=[held]), p.StepReply)[1])
    slow = Slow(monkeypatch, 0)
    for tick in (3 * INTERVAL + 5, 2 * INTERVAL, INTERVAL + 1):
        slow.played = 0
        twin, shown = client.ask(p.BranchRequest(session=session, tick=tick), p.OpenReply)
        assert twin.tick == tick and slow.played <= INTERVAL
        assert np.array_equal(shown, frames[tick - 1])
        slow.played = 0
        again, shown = client.ask(p.BranchRequest(session=twin.session, tick=tick - 1), p.OpenReply)
        assert again.tick == tick - 1 and slow.played <= INTERVAL  # of a branch no more than of what it is of
        assert np.array_equal(shown, frames[tick - 2])
        for made in (twin, again):
            client.ask(p.CloseRequest(session=made.session), p.DoneReply)
