"""What was played in a session over the bridge: its tree, pictures of moments, and the way back to them."""

import numpy as np
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server import moment_handlers
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.open_handlers import SEEK_MEMORY
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.session import Session
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from tests.conftest import BUTTONS, SEED, make_tiny_context

WALK = [Action(frozenset({BUTTONS[n % len(BUTTONS)]})) for n in range(90)]


@pytest.fixture
def recording(tiny_world, tiny_scene, tmp_path):
    server = Server(
        Registry([tiny_world], [load_scene(tiny_scene)]),
        "tcp://127.0.0.1:*",
        recordings=tmp_path / "recordings",
    )
    thread = serve_in_background(server)
    clients: list[Client] = []

    def connect(name: str = "test") -> Client:
        clients.append(Client(server.address, name, patience=20))
        return clients[-1]

    yield server, connect
    for client in clients:
        client.close()
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


def walk(client: Client, session: str, actions: list[Action]) -> np.ndarray:
    return client.ask(p.StepRequest(session=session, actions=actions), p.StepReply)[1]


@pytest.mark.parametrize("seekable", [False, True])
def test_a_session_goes_back_to_any_moment_and_on_from_there_bit_for_bit(recording, tiny_world, seekable):
    server, connect = recording
    client = connect()
    session = client.ask(p.OpenRequest(seekable=seekable), p.OpenReply)[0].session
    frames = walk(client, session, WALK)
    for tick in (70, 40, 89, 0, 3):
        here, shown = client.ask(m.SeekRequest(session=session, branch=1, tick=tick), p.ObserveReply)
        assert (here.tick, here.seed) == (tick, SEED)
        if tick:
            assert np.array_equal(shown[-1], frames[tick - 1])
    again = walk(client, session, WALK[3:30])
    assert np.array_equal(again, frames[3:30])
    told = client.ask(m.TimelineRequest(session=session), m.TimelineReply)[0]
    assert (told.branch, told.tick) == (2, 30)
    assert [(b.id, b.parent, b.first, b.last, b.seed) for b in told.branches] == [
        (1, None, 0, 90, SEED), (2, 1, 3, 30, SEED),
    ]  # fmt: skip
    branched, _ = client.ask(p.BranchRequest(session=session, tick=20), p.OpenReply)  # the past went back too
    twin = Session(tiny_world, make_tiny_context(), SEED)
    for action in [*WALK[:20], WALK[50]]:
        last = twin.step(action)
    assert np.array_equal(walk(client, branched.session, [WALK[50]]), last)
    assert server.sessions.find(session).seek_memory == (SEEK_MEMORY if seekable else 0)


def test_a_moments_picture_is_its_frame_and_a_small_one_is_there_at_once(recording):
    _, connect = recording
    client, other = connect(), connect("other")
    session = client.ask(p.OpenRequest(seekable=True), p.OpenReply)[0].session
    frames = walk(client, session, WALK)
    for tick in (90, 7, 41):
        found, picture = client.ask(m.PictureRequest(session=session, branch=1, tick=tick), m.PictureReply)
        assert (found.branch, found.tick) == (1, tick)
        assert np.array_equal(picture[0], frames[tick - 1])
    told, _ = other.ask(m.TimelineRequest(session=session), m.TimelineReply)
    assert (1, 0) in told.thumbnails and len(told.thumbnails) >= 2
    small, picture = other.ask(
        m.PictureRequest(session=session, branch=1, tick=41, small=True), m.PictureReply
    )
    assert (small.branch, small.tick) in told.thumbnails and picture.shape == small.shape
    with pytest.raises(BridgeError, match="another one controls"):  # it takes the time of ticks
        other.ask(m.PictureRequest(session=session, branch=1, tick=41), m.PictureReply)


def test_a_bookmark_is_kept_in_the_tree_and_there_are_not_endlessly_many(recording, monkeypatch):
    _, connect = recording
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    walk(client, session, WALK[:5])
    kept, _ = client.ask(m.BookmarkRequest(session=session, name="ledge"), m.BookmarkReply)
    assert (kept.name, kept.branch, kept.tick) == ("ledge", 1, 5)
    assert client.ask(m.BookmarkRequest(session=session), m.BookmarkReply)[0].name == "bookmark 2"
    told, _ = client.ask(m.TimelineRequest(session=session), m.TimelineReply)
    assert [(b.name, b.branch, b.tick) for b in told.bookmarks] == [("ledge", 1, 5), ("bookmark 2", 1, 5)]
    monkeypatch.setattr(moment_handlers, "LISTED", 2)
    with pytest.raises(BridgeError, match="which is all"):
        client.ask(m.BookmarkRequest(session=session), m.BookmarkReply)


def test_a_moment_that_there_is_not_and_one_of_nothing_kept_are_refused(recording, server, connect):
    _, dial = recording
    client = dial()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    frames = walk(client, session, WALK[:3])
    for branch, tick in ((1, 4), (2, 0), (0, 0), (2**62, 2**62)):
        with pytest.raises(BridgeError) as refused:
            client.ask(m.SeekRequest(session=session, branch=branch, tick=tick), p.ObserveReply)
        assert refused.value.code == "bad_value"
    assert np.array_equal(client.ask(p.ObserveRequest(session=session), p.ObserveReply)[1], frames[-1:])
    bare = connect()  # of a server that records nothing
    session = bare.ask(p.OpenRequest(seekable=True), p.OpenReply)[0].session
    for request in (m.TimelineRequest(session=session), m.SeekRequest(session=session, branch=1, tick=0)):
        with pytest.raises(BridgeError, match="there is no way back"):
            bare.ask(request, m.TimelineReply)


def test_only_who_plays_goes_back(recording):
    _, connect = recording
    client, other = connect(), connect("other")
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    walk(client, session, WALK[:3])
    for request in (m.SeekRequest(session=session, branch=1, tick=0), m.BookmarkRequest(session=session)):
        with pytest.raises(BridgeError) as refused:
            other.ask(request, p.ObserveReply)
        assert refused.value.code == "not_in_control"


def test_what_makes_the_way_back_quick_is_lent_as_all_memory_is(tiny_world, tiny_scene, tmp_path):
    most = 2 * SEEK_MEMORY // 2**20
    server = Server(
        Registry([tiny_world], [load_scene(tiny_scene)]), "tcp://127.0.0.1:*", limits=Limits(memory=most),
        recordings=tmp_path / "recordings",
    )  # fmt: skip
    thread = serve_in_background(server)
    client = Client(server.address, "test", patience=20)
    client.ask(p.OpenRequest(seekable=True), p.OpenReply)
    with pytest.raises(BridgeError, match="are used up"):
        client.ask(p.OpenRequest(seekable=True), p.OpenReply)
    client.ask(p.OpenRequest(), p.OpenReply)
    client.close()
    server.stop()
    thread.join(20)
