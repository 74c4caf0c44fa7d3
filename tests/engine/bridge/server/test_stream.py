"""The stream for watchers: who knows a session sees it, newest wins, and nobody who watches costs a tick."""

import numpy as np
import pytest
import zmq

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.publisher import SUBSCRIPTIONS
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.frame_codecs import make_decoder
from playhead.engine.session import Session
from playhead.world.action import Action
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import frames_of, serve_process

FORWARD = Action(frozenset({"forward"}))


def opened_with_a_watcher(client: Client, codec: str = "raw") -> tuple[str, zmq.Socket]:
    """A session, and a socket that is watching it by now."""
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    watcher = client.watch(session, codec)
    while not watcher.poll(20):
        client.ask(p.ResetRequest(session=session), p.ObserveReply)
    while watcher.poll(200):
        watcher.recv_multipart()
    return session, watcher


def test_a_watcher_sees_every_bit_and_what_led_to_it(connect, tiny_world):
    client = connect()
    session, watcher = opened_with_a_watcher(client)
    alone, number = Session(tiny_world, make_tiny_context(), SEED), None
    for tick in range(1, 6):
        client.ask(p.StepRequest(session=session, actions=[FORWARD], frames="none"), p.StepReply)
        header, frames = next(frames_of(watcher))
        assert np.array_equal(frames, alone.step(FORWARD))
        assert (header.session, header.tick, header.seed) == (session, tick, SEED)
        assert (header.action, header.begins, header.key) == (FORWARD, False, True)
        assert number is None or header.number == number + 1
        number = header.number
    client.ask(p.ResetRequest(session=session, seed=3), p.ObserveReply)
    header, _ = next(frames_of(watcher))
    assert (header.tick, header.seed, header.action, header.begins) == (0, 3, None, True)


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_encoded_frames_look_as_they_should_and_come_at_once(connect, tiny_world, codec):
    """From the first one that a watcher sees, which may be any tick."""
    client = connect()
    session, _ = opened_with_a_watcher(client, codec)
    alone, decode = Session(tiny_world, make_tiny_context(), SEED), make_decoder(codec, 64, 64)
    client.ask(p.StepRequest(session=session, actions=[FORWARD] * 3), p.StepReply)
    dreamed = [alone.step(FORWARD)[0] for _ in range(3)]
    watcher, first = client.watch(session, codec), True
    for _ in range(50):
        _, frames = client.ask(p.StepRequest(session=session, actions=[FORWARD]), p.StepReply)
        dreamed.append(alone.step(FORWARD)[0])
        assert np.array_equal(frames[0], dreamed[-1])
        if not watcher.poll(50 if first else 20_000):
            continue
        _, header, packet = watcher.recv_multipart()
        header, frame = p.decode_header(header), decode(packet)
        assert header.key or not first
        first = False
        assert looks(frame) == pytest.approx(looks(dreamed[header.tick - 1]), abs=8)
    assert not first


def looks(frame: np.ndarray) -> np.ndarray:
    """The brightness of the parts of a frame, which an encoding should keep."""
    return frame.reshape(8, 8, 8, 8, 3).mean((1, 3, 4))


def test_nobody_sees_a_session_without_its_whole_name(server, connect):
    client = connect()
    session, watcher = opened_with_a_watcher(client)
    curious = client.new_socket(zmq.SUB)
    curious.connect(f"{server.address.rpartition(':')[0]}:{server.frames_port}")
    for topic in (b"", session[:5].encode(), f"{session}/".encode(), f"{session}/ra".encode()):
        curious.subscribe(topic)
    client.ask(p.StepRequest(session=session, actions=[FORWARD] * 20, frames="none"), p.StepReply)
    next(frames_of(watcher))
    assert not curious.poll(200)


@pytest.mark.parametrize("attack", ["other messages", "too many topics", "too often"])
def test_who_abuses_the_stream_is_cut_off_and_who_watches_goes_on_seeing(server, connect, attack):
    client = connect()
    session, watcher = opened_with_a_watcher(client)
    topic = p.topic(session, "raw")
    hostile = client.new_socket(zmq.XSUB)
    hostile.connect(f"{server.address.rpartition(':')[0]}:{server.frames_port}")
    monitor = hostile.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    count = 0
    while not monitor.poll(1):
        if attack == "other messages":
            hostile.send(b"\5nonsense")
        elif attack == "too many topics":
            hostile.send(b"\1%d" % count)
        else:
            hostile.send(bytes([count % 2]) + topic)
        count += 1
        assert count < 100 * SUBSCRIPTIONS
    hostile.disable_monitor()
    hostile.close(0)
    while not watcher.poll(20):
        client.ask(p.StepRequest(session=session, actions=[FORWARD], frames="none"), p.StepReply)
    header, _ = next(frames_of(watcher))
    assert header.session == session


def test_a_watcher_that_stops_reading_misses_ticks_and_the_session_none(tiny_world_folder, tiny_scene):
    """A real server, and a watcher that reads nothing for longer than every buffer on the way lasts."""
    with serve_process(tiny_world_folder, tiny_scene) as (_, address):
        client = Client(address, "player")
        session, watcher = opened_with_a_watcher(client)
        tick = client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick
        walk = p.StepRequest(session=session, actions=[FORWARD] * 250, frames="none")
        assert client.ask(walk, p.StepReply)[0].tick == tick + 250
        numbers = []
        while watcher.poll(500):
            numbers.append(p.decode_header(watcher.recv_multipart()[1]).tick)
        assert numbers == sorted(numbers) and 0 < len(numbers) < 250
        client.close()
