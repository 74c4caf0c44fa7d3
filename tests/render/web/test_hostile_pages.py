"""Whatever comes by a WebSocket, it is answered, refused or hung up on, and those beside do not notice."""

import contextlib
import json
import random
import socket
import threading
import time

import msgpack
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, WebSocketException

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.wire.protocol import MAX_REQUEST
from playhead.engine.session import Session
from playhead.render.web import http_connection
from playhead.render.web.frame_flow import UNDER_WAY
from playhead.render.web.page_connection import WAITING
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import BUTTONS, SEED, THOROUGH, make_tiny_context
from tests.engine.bridge.conftest import wait_for
from tests.engine.bridge.fuzz import FIELDS, REQUESTS, Hostile
from tests.render.web.conftest import serve_pages, serving_pages
from tests.render.web.page_client import PageClient, frames_of_reply

KINDS = [*REQUESTS, "watch", "seen", "download", "tick"]
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
requests = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from([*FIELDS, "codec", "number"]), values, max_size=6),
)
messages = st.text(max_size=300) | st.binary(max_size=300) | (values | requests).map(json.dumps)


@pytest.fixture(scope="module")
def served(tiny_world, tiny_scene):
    with serving_pages(tiny_world, tiny_scene) as found:
        yield found


@pytest.fixture
def page(served):
    with PageClient(served[1].link) as client:
        yield client


@settings(max_examples=200 * THOROUGH, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=messages)
def test_after_any_message_the_next_is_answered(served, page, caplog, message):
    page.line.send(message)
    welcome = page.ask("hello", protocol=[1], client="test")
    assert welcome["type"] == "welcome"
    assert not caplog.records


@pytest.mark.parametrize("size", [MAX_REQUEST + 1, 8 * MAX_REQUEST])
@pytest.mark.parametrize("pieces", [1, 40])
def test_a_message_too_long_ends_its_connection_alone(served, page, size, pieces):
    with PageClient(served[1].link) as hostile:
        text = "x" * (size // pieces)
        with pytest.raises(ConnectionClosed) as ended:
            hostile.line.send(text if pieces == 1 else [text] * (pieces + 1))
            hostile.receive()
        assert ended.value.rcvd is None or ended.value.rcvd.code == 1009
    assert page.ask("ping")["type"] == "pong"


@pytest.mark.parametrize(
    "message", ["", "[]", "null", '{"type": "ping"', b"\x00" * 9, "[" * 5000, '{"type": "tick"}']
)
def test_what_is_no_request_is_refused_under_its_id(page, message):
    page.line.send(message)
    assert page.receive()["code"] == "malformed"
    page.line.send('{"type": "nothing", "id": 7}')
    refused = page.receive()
    assert (refused["id"], refused["code"]) == (7, "malformed")


def test_who_says_no_hello_gets_nothing_and_is_hung_up_on(served):
    with PageClient(served[1].link, hello=False) as nobody:
        for type, fields in (
            ("worlds", {}),
            ("watch", {"session": "x", "codec": "jpeg"}),
            ("download", {"session": "x"}),
        ):
            assert nobody.ask(type, **fields)["code"] == "hello_first"
        with pytest.raises(ConnectionClosed):
            nobody.receive(30)


def test_too_many_requests_are_refused(tiny_world, tiny_scene):
    with (
        serving_pages(tiny_world, tiny_scene, limits=Limits(rate=20)) as (_, door),
        PageClient(door.link) as page,
    ):
        codes = {page.ask("ping").get("code") for _ in range(60)}
        assert codes == {None, "rate"}


def test_a_page_that_reads_nothing_is_hung_up_on_and_its_replies_are_not_kept(served, page):
    server, door = served
    joined = server.connections._joined
    before, most = set(joined), 0
    with contextlib.closing(socket.socket()) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", door.address.port))
        line.sendall(handshake(door))
        assert b" 101 " in line.recv(4096)
        line.sendall(masked('{"type":"hello","protocol":[1],"client":"x"}'))
        wait_for(lambda: len(joined) > len(before))
        (hostile,) = set(joined) - before
        line.setblocking(False)
        until = time.monotonic() + 60
        while hostile in joined:
            assert time.monotonic() < until, "it could have sent requests for ever"
            most = max(most, len(hostile._waiting))
            with contextlib.suppress(OSError):  # the server reads no more, or is gone
                line.send(masked('{"type":"worlds","id":1}'))
            time.sleep(0.0002)
    assert 20 < most <= WAITING
    assert page.ask("ping")["type"] == "pong"


def handshake(door) -> bytes:
    host = f"127.0.0.1:{door.address.port}"
    return (
        f"GET /play HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def masked(text: str) -> bytes:
    """A frame of a client's, masked by nothing but zeros."""
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


def test_a_page_that_draws_slowly_gets_the_newest_and_no_tick_waits_for_it(served, page):
    server, _ = served
    session = page.ask("open", clock="live")["session"]
    hosted = server.sessions.find(session)
    assert page.ask("watch", session=session, codec="jpeg")["type"] == "done"
    numbers = [page.tick()["header"]["number"] for _ in range(UNDER_WAY)]
    assert numbers == list(range(numbers[0], numbers[0] + UNDER_WAY))
    began = hosted.loop.stats.tick
    while hosted.loop.stats.tick < began + 20:
        time.sleep(0.01)
    page.send("seen", number=numbers[-1])
    assert page.tick()["header"]["tick"] >= began + 19


def test_nobody_sees_a_session_whose_id_is_not_known(served, page):
    with PageClient(served[1].link) as other:
        session = page.ask("open")["session"]
        for guess in ("", session[:-1], session[:-1] + "x", session + "/", "*"):
            assert other.ask("watch", session=guess, codec="jpeg")["code"] == "unknown_session"
        assert other.ask("step", session=session, actions=[{}])["code"] == "not_in_control"


def test_a_session_beside_hostile_pages_is_a_scripts_and_memory_is_flat(tiny_world_folder, tiny_scene):
    """Thousands of hostile messages by several pages, some of which go in the midst of it."""
    count, draw = 4000 * THOROUGH, random.Random(0)
    options = ("--bind", "127.0.0.1:*", "--memory", "64", "--rate", "1000000")
    with serve_pages(tiny_world_folder, tiny_scene, *options) as (process, link), PageClient(link) as page:
        session = page.ask("open")["session"]
        played, stop = [], threading.Event()

        def play():
            own = random.Random(1)
            while not stop.is_set():
                action = {"buttons": own.sample(BUTTONS, own.randrange(3))}
                reply = page.ask("step", session=session, actions=[action])
                played.append((action, frames_of_reply(reply)))

        player = threading.Thread(target=play)
        player.start()
        source, memory = Hostile(0, [session]), []
        lines = [PageClient(link, "hostile", hello=bool(i)) for i in range(4)]
        for sent in range(count):
            at = draw.randrange(len(lines))
            try:
                lines[at].line.send(as_text(source.message()))
                if draw.random() < 0.01:
                    lines[at].line.send("x" * (MAX_REQUEST + draw.randrange(1, 99)))
                if draw.random() < 0.02:
                    lines[at].line.socket.close()
            except (ConnectionClosed, OSError):
                lines[at] = PageClient(link, "hostile", hello=draw.random() < 0.8)
            if sent % (count // 8) == 0:
                memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
        memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
        stop.set()
        player.join(30)
        assert not player.is_alive() and len(played) > 20
        for line in lines:
            line.line.socket.close()
        process.terminate()
        said = process.communicate(timeout=20)[1]
        assert process.returncode in (0, 143) and "Traceback" not in said, said
    twin = Session(World.load(str(tiny_world_folder), "cpu"), make_tiny_context(), SEED)
    for action, frames in played:
        assert np.array_equal(twin.step(Action(frozenset(action["buttons"]))), frames)
    assert memory[-1] < memory[1] + 40, memory


def as_text(parts: list[bytes]) -> str | bytes:
    """A hostile message of the bridge's, as a page would send it."""
    try:
        return json.dumps(msgpack.unpackb(parts[0]))
    except Exception:
        return parts[0] if len(parts) == 1 else parts[0].decode("latin-1")


def test_connections_that_ask_for_nothing_are_hung_up_on_and_there_are_so_many_at_a_time(
    tiny_world, tiny_scene, monkeypatch
):
    monkeypatch.setattr(http_connection, "CONNECTIONS", 6)
    monkeypatch.setattr(http_connection, "FIRST", 0.5)
    with serving_pages(tiny_world, tiny_scene) as (_, door), PageClient(door.link) as page:
        silent = [socket.create_connection(("127.0.0.1", door.address.port), 20) for _ in range(20)]
        for n, line in enumerate(silent):
            with contextlib.suppress(OSError):
                line.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n"[: 3 + n])
        for line in silent:
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(100) == b""
            line.close()
        pages = [PageClient(door.link) for _ in range(5)]
        with pytest.raises((OSError, EOFError, WebSocketException)):
            PageClient(door.link)
        for one in pages:
            one.close()
        assert page.ask("ping")["type"] == "pong"
        time.sleep(1)  # longer than a connection may say nothing at first
        assert page.ask("ping")["type"] == "pong"


@pytest.mark.parametrize("how", ["close", "vanish"])
def test_with_its_line_a_page_loses_the_control_and_its_session_stands_still(served, how):
    server, door = served
    page = PageClient(door.link)
    hosted = server.sessions.find(page.ask("open", clock="live")["session"])
    page.ask("watch", session=hosted.id, codec="jpeg")
    page.tick()
    if how == "close":
        page.close()
    else:
        page.line.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: not hosted.lease.holder)
    wait_for(lambda: not server.publisher.watched(hosted.id))
    tick = hosted.loop.ask(lambda session: session.tick).result()
    time.sleep(0.3)
    assert hosted.loop.ask(lambda session: session.tick).result() == tick
    with PageClient(door.link) as again:
        token = page.welcome["token"]
        assert again.ask("hello", protocol=[1], client="test", resume=token)["token"] == token
        assert again.ask("control", session=hosted.id, want="take")["in_control"]
        assert again.ask("act", session=hosted.id, action={"buttons": ["forward"]})["type"] == "received"
