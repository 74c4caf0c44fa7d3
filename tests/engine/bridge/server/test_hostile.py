"""Whatever comes in, the server answers or drops it, and those beside do not notice."""

import contextlib
import socket
import threading

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.loop import Loop
from playhead.engine.session import Session
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import serving
from tests.engine.bridge.fuzz import FIELDS, REQUESTS, attack
from tests.engine.bridge.raw import SIGNATURE, stray

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
requests = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(REQUESTS),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=6),
)
messages = st.binary(max_size=300) | st.one_of(values, requests).map(
    lambda value: msgpack.packb(value, unicode_errors="surrogatepass")
)


@pytest.fixture(scope="module")
def talk(tiny_world, tiny_scene):
    """A server, a client of it that has said hello, and a bare socket."""
    with serving(tiny_world, tiny_scene) as server:
        client = Client(server.address, "test", patience=20)
        yield server, client
        client.close()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=messages, parts=st.integers(1, 3))
def test_every_message_is_answered_by_one_of_the_protocol(talk, caplog, message, parts):
    _, client = talk
    client.socket.send_multipart([message] * parts)
    reply, _ = client.receive(20)
    assert isinstance(reply, p.ErrorReply) or parts == 1
    client.ask(p.HelloRequest(protocol=[p.VERSION], client="test"), p.WelcomeReply)
    assert not caplog.records


class Nobody:
    """A source of nothing."""

    def sample(self) -> Action:
        return Action()


RAW = {
    "five stray bytes": stray(),
    "a web page's post": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 5\r\n\r\n\x01\x00\x02\x00x" + bytes(200)
    ),
    "a request of ZMTP 1": b"\x01\x00" + b"\x02\x01x" + b"\x05\x00\x81\xa1ab",
    "a greeting of ZMTP 2": SIGNATURE + b"\x01\x05\x00\x00\x00\x01x",
}


@pytest.mark.parametrize("port", ["requests", "frames"])
@pytest.mark.parametrize("opening", RAW.values(), ids=RAW)
def test_who_does_not_speak_zeromq_is_hung_up_on_and_nobody_else_notices(server, connect, opening, port):
    client = connect()
    address = server.address if port == "requests" else f"tcp://127.0.0.1:{server.frames_port}"
    host, _, number = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(number)), 10) as line:
        line.sendall(opening)
        line.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while line.recv(4096):  # to its end: the server's greeting, and that it hangs up
                pass
        client.ask(p.PingRequest(), p.PongReply)
    client.ask(p.OpenRequest(), p.OpenReply)


def test_a_fault_of_the_servers_own_ends_nothing_but_what_met_with_it(server, connect, monkeypatch, caplog):
    client = connect()
    met = threading.Event()

    def fail() -> None:
        met.set()
        raise RuntimeError("a fault")

    monkeypatch.setattr(server, "_sweep", fail)
    assert met.wait(10)
    monkeypatch.undo()
    client.ask(p.PingRequest(), p.PongReply)
    client.ask(p.OpenRequest(), p.OpenReply)
    assert "a fault" in caplog.text


def test_a_window_whose_bridge_cannot_go_on_ends_with_a_sentence(tiny_world, tiny_scene):
    shared = SharedPlay("tcp://127.0.0.1:*")
    loop = Loop(lambda: Session(tiny_world, load_scene(tiny_scene).context, 0), shared.source(Nobody()))
    shared.serve(loop, lambda: load_scene(tiny_scene))
    loop.start()

    def fail(ready: object) -> None:
        raise RuntimeError("a fault")

    shared._server._turn = fail
    shared._server.post(lambda: None)
    with pytest.raises(PlayheadError, match=r"the bridge cannot go on \(a fault\)"):
        loop.join()


def test_messages_after_an_end_or_before_a_beginning_are_refused(talk):
    server, client = talk
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(server.address)
        session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
        for request in (
            p.PingRequest(id=5),
            p.ObserveRequest(id=6, session=session),
            p.CloseRequest(id=7, session=session),
        ):
            stranger.send(p.encode(request))
            reply = p.decode_reply(stranger.recv())
            assert (reply.code, reply.id) == ("hello_first", request.id)
    ids = [client.send(r) for r in (p.CloseRequest(session=session), p.ObserveRequest(session=session))]
    client.answer(ids[0], p.DoneReply)
    with pytest.raises(BridgeError) as error:
        client.answer(ids[1], p.ObserveReply)
    assert error.value.code == "unknown_session"


def test_hostile_messages_and_raw_bytes_change_nothing_for_a_neighbour(tiny_world_folder, tiny_scene):
    """The short form of `python -m tests.tools.long bridge-fuzz`, which sends a million."""
    outcome = attack(tiny_world_folder, tiny_scene, 4000, seed=2, raw=400)
    assert outcome.said == ""  # no fault of the server's own
    assert outcome.neighbour["ticks"]
    assert {"malformed", "hello_first", "unknown_session", "welcome", "pong", "opened"} <= set(
        outcome.answers
    )
