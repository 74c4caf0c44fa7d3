"""What somebody sees who listens on the wire: everything without keys, and with them nothing."""

import pytest
import zmq

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import load_client_keys, load_server_keys
from playhead.world.action import Action
from tests.engine.bridge.cable import Cable
from tests.engine.bridge.conftest import frames_of, serving

FORWARD = Action(frozenset({"forward"}))


@pytest.fixture(params=["plain", "curve"])
def listened(request, keys, tiny_world, tiny_scene):
    """A server behind cables that are listened on, for requests and for frames, and a client's keys."""
    trusted = mine = None
    if request.param == "curve":
        trusted = load_server_keys(keys / "server.key_secret", keys / "allowed")
        mine = load_client_keys(keys / "laptop.key_secret", keys / "server.key")
    with serving(tiny_world, tiny_scene, trusted=trusted) as server:
        cables = [Cable(server.address), Cable(f"tcp://127.0.0.1:{server.frames_port}")]
        yield request.param, cables, mine
        for cable in cables:
            cable.close()


def test_a_capture_shows_everything_without_keys_and_nothing_with_them(listened):
    kind, (requests, stream), keys = listened
    client = Client(requests.address, "a-name-to-be-seen", keys, patience=20)
    try:
        opened, picture = client.ask(p.OpenRequest(), p.OpenReply)
        watcher = client.new_socket(zmq.SUB)
        watcher.connect(stream.address)
        watcher.subscribe(p.topic(opened.session, "raw"))
        while True:
            _, frames = client.ask(p.StepRequest(session=opened.session, actions=[FORWARD]), p.StepReply)
            if watcher.poll(50):  # the subscription has arrived there
                break
        _, watched = next(frames_of(watcher))
        snapshot = client.ask(p.SnapshotRequest(session=opened.session), p.SnapshotReply)[0].snapshot
    finally:
        client.close()
    ids = [opened.session, snapshot, client.welcome.token]
    words = [b"a-name-to-be-seen", b"stepped", b"forward", *(id.encode() for id in ids)]
    words += [rows[0, 20:23].tobytes() for rows in (picture, frames)]
    readable = [word in requests.captured for word in words]
    assert len(requests.captured) > picture.nbytes + frames.nbytes
    assert all(readable) if kind == "plain" else not any(readable)
    assert len(stream.captured) > watched.nbytes
    assert (watched[0, 20:23].tobytes() in stream.captured) == (kind == "plain")
    assert (opened.session.encode() in stream.captured) == (kind == "plain")
