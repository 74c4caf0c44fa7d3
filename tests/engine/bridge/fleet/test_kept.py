"""What is kept of a session goes on elsewhere bit for bit, and only its owner is given it."""

from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.client.host_finding import reach_host
from playhead.engine.bridge.client.remote_session import RemoteSession, SessionOptions
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import ServerKeys, load_client_keys, load_server_keys
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.fleet import kept_session
from playhead.engine.fleet.kept_session import Keeper, KeptSession
from playhead.engine.fleet.session_host import HostOptions, HostPlace, SessionHost
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.conftest import BUTTONS
from tests.engine.bridge.conftest import until, wait_for


def test_only_the_owner_is_given_a_session_and_what_has_ended_is_forgotten() -> None:
    keeper = Keeper(idle=600)
    keeper.keep("first", "s1", "mine", b"state")
    keeper.keep("first", "s2", "mine", b"other")
    assert keeper.find("s1", "mine") == b"state"
    assert keeper.find("s1", "") is keeper.find("s1", "yours") is keeper.find("s3", "mine") is None
    keeper.report("second", [])  # of what others play it knows nothing
    assert keeper.find("s1", "mine") is not None
    keeper.move("s1", "second")
    keeper.report("first", ["s2"])  # as a host does that was given up for dead
    assert keeper.find("s1", "mine") == b"state"
    keeper.report("second", [])
    assert keeper.find("s1", "mine") is None and keeper.find("s2", "mine") == b"other"


def test_a_session_that_no_host_speaks_of_any_more_is_forgotten_after_a_while(monkeypatch) -> None:
    keeper, now = Keeper(idle=600), [0.0]
    monkeypatch.setattr(kept_session.time, "monotonic", lambda: now[0])
    keeper.keep("dead", "s1", "mine", b"state")
    keeper.report("live", [])
    now[0] = 599
    keeper.report("live", [])
    assert keeper.find("s1", "mine") == b"state"
    now[0] = 601
    keeper.report("live", [])
    assert keeper.find("s1", "mine") is None


class LocalFleet:
    """Hosts in this process, found as `Fleet` finds those of a Ray: sessions move where a host is gone."""

    def __init__(self, options: HostOptions, count: int, trusted: ServerKeys | None = None) -> None:
        self.keeper, self._trusted = Keeper(idle=600), trusted
        self.hosts = [SessionHost(options, self.keeper, "127.0.0.1") for _ in range(count)]
        self.live = [*self.hosts]

    def find(self, session: str, token: str) -> "Future[HostPlace]":
        allowed, answer = self._trusted.listed() if self._trusted else [], Future()
        host = next((h for h in self.live if session and h.plays(session)), self.live[0])
        if session and not host.plays(session):
            data = self.keeper.find(session, token)
            if data is None:
                answer.set_exception(BridgeError("unknown_session", "there is no such session"))
                return answer
            self.keeper.move(session, host.adopt(data))
        answer.set_result(host.place(allowed))
        return answer

    def lose(self, host: SessionHost) -> None:
        host.stop()
        self.live.remove(host)

    def close(self) -> None:
        for host in [*self.live]:
            self.lose(host)


@contextmanager
def fleet_door(folder, scene, keys=None, count: int = 2):
    limits = Limits(sessions=4)
    options = HostOptions(
        (str(folder),), (scene,), "cpu", None, None, None, None, None, limits, keys is not None, 0.05
    )
    fleet = LocalFleet(options, count, keys)
    server = Server(Registry([], []), "tcp://127.0.0.1:*", keys, find_host=fleet.find)
    thread = serve_in_background(server)
    try:
        yield fleet, server.address
    finally:
        server.stop()
        thread.join(20)
        fleet.close()


def kept_at(fleet: LocalFleet, session: str, token: str, tick: int) -> None:
    """Waits until a session is kept as it was after a tick."""

    def look() -> bool:
        data = fleet.keeper.find(session, token)
        return data is not None and KeptSession.unpack(data).snapshot.tick == tick

    wait_for(look)


@pytest.mark.parametrize("clock", ["lockstep", "live"])
def test_a_client_plays_on_at_another_host_from_the_last_snapshot(
    tiny_world_folder, tiny_scene, clock
) -> None:
    with fleet_door(tiny_world_folder, tiny_scene) as (fleet, address):
        remote = RemoteSession(address, None, SessionOptions(seed=3))
        session, token = remote.opened.session, remote.client.welcome.token
        held = [Action(frozenset(b for b in BUTTONS if (n + len(b)) % 3)) for n in range(9)]
        step = p.StepRequest(session=session, actions=held[:4])
        remote.client.ask(step, p.StepReply)
        kept_at(fleet, session, token, 4)
        whole = remote.client.ask(p.StepRequest(session=session, actions=held[4:]), p.StepReply)[1]
        remote.client.ask(p.RestoreRequest(session=session, snapshot=_at_four(remote, held)), p.ObserveReply)
        if clock == "live":
            tune = p.TuneRequest(session=session, clock="live", paused=True)
            remote.client.ask(tune, p.DoneReply)
        wait_for(lambda: KeptSession.unpack(fleet.keeper.find(session, token)).clock == clock)
        kept_at(fleet, session, token, 4)
        fleet.lose(fleet.hosts[0])
        wait_for(lambda: remote.client.lost or not remote.client.receive(0.1))
        remote.come_back(lambda: False, lambda sentence: None)
        assert remote.same and remote.opened.session == session and remote.control.in_control
        assert remote.opened.clock == clock
        assert remote.remark == f"its host was lost: another one goes on from tick {remote.opened.tick}"
        if clock == "live":  # it goes on as soon as its owner is there, and not before
            assert remote.opened.tick in range(4, 40)
            act = remote.client.send(p.ActRequest(session=session, action=held[0]))
            assert until(remote.client, p.AppliedPush, act).tick > 4
            return
        assert remote.opened.tick == 4
        again = remote.client.ask(p.StepRequest(session=session, actions=held[4:]), p.StepReply)[1]
        assert np.array_equal(again, whole)
        remote.close()


def _at_four(remote: RemoteSession, held: list[Action]) -> str:
    """A snapshot of the session four ticks from its start."""
    session = remote.opened.session
    remote.client.ask(p.ResetRequest(session=session), p.ObserveReply)
    remote.client.ask(p.StepRequest(session=session, actions=held[:4]), p.StepReply)
    return remote.client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot


def test_a_session_that_was_not_kept_begins_anew_and_says_so(tiny_world_folder, tiny_scene) -> None:
    with fleet_door(tiny_world_folder, tiny_scene) as (fleet, address):
        remote = RemoteSession(address, None, SessionOptions(seed=3))
        session = remote.opened.session
        kept_at(fleet, session, remote.client.welcome.token, 0)
        fleet.lose(fleet.hosts[0])
        fleet.keeper._kept.clear()  # its process died too
        remote.come_back(lambda: False, lambda sentence: None)
        assert not remote.same and remote.opened.session != session and remote.opened.tick == 0
        assert remote.remark == "the server lost the session: it begins anew"
        remote.close()


def test_a_stranger_cannot_have_a_session_moved_or_take_it(tiny_world_folder, tiny_scene) -> None:
    with fleet_door(tiny_world_folder, tiny_scene) as (fleet, address):
        remote = RemoteSession(address, None, SessionOptions())
        session = remote.opened.session
        kept_at(fleet, session, remote.client.welcome.token, 0)
        fleet.lose(fleet.hosts[0])
        stranger = Client(address, patience=20)
        asked = p.HostRequest(session=session, resume="a guess")
        with pytest.raises(BridgeError, match="no such session"):
            stranger.ask(asked, p.HostReply)
        stranger.close()
        remote.come_back(lambda: False, lambda sentence: None)
        other = reach_host(address, "stranger", None, 20)
        with pytest.raises(BridgeError) as refused:
            other.ask(p.StepRequest(session=session, actions=[Action()]), p.StepReply)
        assert refused.value.code == "not_in_control"
        other.close()
        remote.close()


def test_by_keys_hosts_have_keys_of_their_own_and_know_the_same_clients(
    tiny_world_folder, tiny_scene, keys
) -> None:
    trusted = load_server_keys(keys / "server.key_secret", keys / "allowed")
    with fleet_door(tiny_world_folder, tiny_scene, trusted, count=1) as (fleet, address):
        mine = load_client_keys(keys / "laptop.key_secret", keys / "server.key")
        remote = RemoteSession(address, mine, SessionOptions())
        stepped = p.StepRequest(session=remote.opened.session, actions=[Action()])
        assert remote.client.ask(stepped, p.StepReply)[0].tick == 1
        place = fleet.find("", "").result()
        assert place.key and place.key.encode() != trusted.public and place.room == 3
        pretended = replace(mine, server=trusted.public)  # the door's key is not the host's
        with pytest.raises(PlayheadError):
            Client(place.address, keys=pretended, patience=1)
        remote.close()


def test_a_plain_server_says_that_it_plays_sessions_itself(server, connect) -> None:
    client = connect()
    assert not client.welcome.hosts
    with pytest.raises(BridgeError, match="sessions are played here; open one"):
        client.ask(p.HostRequest(), p.HostReply)
