"""Save recording over the bridge: into one folder, by a name, and what is saved replays bit for bit."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import replay
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from tests.conftest import BUTTONS
from tests.engine.bridge.conftest import SlowDisk, serve_process, wait_for


@pytest.fixture
def server_of_recordings(tiny_world, tiny_scene, tmp_path) -> Iterator[Server]:
    """It saves to the folder `kept`."""
    registry = Registry([tiny_world], [load_scene(tiny_scene)])
    server = Server(registry, "tcp://127.0.0.1:*", recordings=tmp_path / "kept")
    thread = serve_in_background(server)
    yield server
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def recorded(server_of_recordings, tmp_path):
    """A client of a server that saves, and the folder."""
    folder = tmp_path / "kept"
    client = Client(server_of_recordings.address, "test", patience=20)
    yield client, folder
    client.close()
    server_of_recordings.stop()
    wait_for(lambda: not list(folder.glob(".unsaved-*")))
    assert all(file.suffix == ".playhead" for file in folder.iterdir())  # what was not saved is gone


def step(client: Client, session: str, count: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    held = [Action(frozenset(b for b in BUTTONS if draws.random() < 0.5)) for _ in range(count)]
    return client.ask(p.StepRequest(session=session, actions=held), p.StepReply)[1]


def test_what_was_played_is_saved_with_its_branches_and_replays_bit_for_bit(recorded, tiny_world):
    client, folder = recorded
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    first = step(client, session, 5, seed=0)
    kept = client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot
    second = step(client, session, 6, seed=1)
    client.ask(p.RestoreRequest(session=session, snapshot=kept), p.ObserveReply)
    other = step(client, session, 3, seed=2)
    saved = client.ask(p.SaveRequest(session=session, name="walk"), p.SaveReply)[0]
    assert (saved.file, saved.ticks) == ("walk.playhead", 14)
    recording = Recording.read(folder / "walk.playhead")
    for branch, wanted in ((1, [*first, *second]), (2, [*first, *other])):
        ticks = [r for r in replay(recording, tiny_world, branch) if r.played is not None]
        assert all(r.equal for r in ticks) and {r.played.source for r in ticks} == {"bridge"}
        assert np.array_equal(np.concatenate([r.frames for r in ticks]), wanted)


@pytest.mark.parametrize("kind", ["fork", "branch"])
def test_a_twin_is_recorded_from_the_start_on(recorded, tiny_world, kind):
    client, folder = recorded
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(client, session, 3, seed=4)
    client.ask(p.ResetRequest(session=session), p.ObserveReply)
    past = step(client, session, 6, seed=0)
    request = p.ForkRequest(session=session) if kind == "fork" else p.BranchRequest(session=session, tick=4)
    twin = client.ask(request, p.OpenReply)[0]
    assert twin.tick == (6 if kind == "fork" else 4)
    more = step(client, twin.session, 3, seed=1)
    client.ask(p.SaveRequest(session=twin.session, name="twin"), p.SaveReply)
    ticks = [r for r in replay(Recording.read(folder / "twin.playhead"), tiny_world) if r.played is not None]
    assert all(r.equal for r in ticks)
    assert np.array_equal(np.concatenate([r.frames for r in ticks]), [*past[: twin.tick], *more])


def test_a_twin_of_a_moment_before_the_last_way_back_is_recorded_too(recorded, tiny_world):
    client, folder = recorded
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    past = step(client, session, 4, seed=0)
    kept = client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot
    step(client, session, 3, seed=1)
    client.ask(p.RestoreRequest(session=session, snapshot=kept), p.ObserveReply)
    step(client, session, 2, seed=2)
    for tick in (0, 2, 4):
        twin = client.ask(p.BranchRequest(session=session, tick=tick), p.OpenReply)[0].session
        more = step(client, twin, 3, seed=3)
        client.ask(p.SaveRequest(session=twin, name=f"twin-{tick}"), p.SaveReply)
        found = list(replay(Recording.read(folder / f"twin-{tick}.playhead"), tiny_world))[1:]
        assert all(r.equal for r in found)
        assert np.array_equal(np.concatenate([r.frames for r in found]), [*past[:tick], *more])


def test_a_recording_is_saved_under_a_new_name_in_the_folder_or_not_at_all(recorded, server, connect):
    client, folder = recorded
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(client, session, 2, seed=0)
    paths = ("../walk", "/tmp/walk", "a/b", "", ".hidden")
    for name in (*paths, "x" * 65, "nul\0", "a\n", "\n", "a\r", "\u0661"):
        with pytest.raises(BridgeError) as error:
            client.ask(p.SaveRequest(session=session, name=name), p.SaveReply)
        assert error.value.code == "malformed"
    client.ask(p.SaveRequest(session=session, name="walk"), p.SaveReply)
    before = (folder / "walk.playhead").read_bytes()
    step(client, session, 2, seed=0)
    with pytest.raises(BridgeError, match="choose another name"):
        client.ask(p.SaveRequest(session=session, name="walk"), p.SaveReply)
    assert [f.name for f in folder.iterdir() if not f.name.startswith(".unsaved-")] == ["walk.playhead"]
    assert (folder / "walk.playhead").read_bytes() == before

    unrecorded = connect()
    session = unrecorded.ask(p.OpenRequest(), p.OpenReply)[0].session
    with pytest.raises(BridgeError, match="--recordings FOLDER") as error:
        unrecorded.ask(p.SaveRequest(session=session, name="walk"), p.SaveReply)
    assert error.value.code == "refused"


@pytest.fixture
def other(server_of_recordings) -> Iterator[Client]:
    client = Client(server_of_recordings.address, "other", patience=20)
    yield client
    client.close()


@pytest.mark.parametrize(
    "kind", [p.ForkRequest, partial(p.BranchRequest, tick=100), partial(p.SaveRequest, name="walk")]
)
def test_copies_of_a_long_recording_hold_up_nobody_else(recorded, other, monkeypatch, kind):
    """What was asked for first has hundreds of rows to copy, and who asks for little comes between them."""
    greedy, _ = recorded
    session = greedy.ask(p.OpenRequest(), p.OpenReply)[0].session
    mine = other.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(greedy, session, 100, seed=0)
    disk = SlowDisk(monkeypatch, 0.02)
    asked = [greedy.send(kind(session=session)) for _ in range(3)]
    wait_for(lambda: disk.rows)
    for name in ("one", "two"):
        other.ask(p.OpenRequest(), p.OpenReply)
        other.ask(p.SaveRequest(session=mine, name=name), p.SaveReply)
    assert disk.rows < 100, "the first copy was done"
    answered = [reply for reply in iter(lambda: greedy.receive(0), None) if reply[0].id in asked]
    assert not answered


@pytest.mark.parametrize("kind", [p.ForkRequest, partial(p.SaveRequest, name="walk")])
def test_copies_are_given_up_with_nothing_left_when_whoever_asked_is_gone(
    server_of_recordings, recorded, other, monkeypatch, kind
):
    _, folder = recorded
    greedy = Client(server_of_recordings.address, "greedy", patience=20)
    session = greedy.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(greedy, session, 100, seed=0)
    disk = SlowDisk(monkeypatch, 0.02)
    for _ in range(7):
        greedy.send(kind(session=session))
    wait_for(lambda: disk.rows)
    greedy.close()
    wait_for(lambda: not files(folder, "draft"))
    assert disk.rows < 600  # of 700
    other.ask(p.OpenRequest(), p.OpenReply)
    wait_for(lambda: not server_of_recordings.opener.opening)
    assert len(files(folder)) == 2  # of the session that was left, and of this one


def test_a_session_that_is_closed_while_it_is_copied_names_no_file(recorded, monkeypatch):
    client, folder = recorded
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    step(client, session, 100, seed=0)
    (source,) = files(folder)
    disk = SlowDisk(monkeypatch, 0.03)
    first, second = (client.send(p.ForkRequest(session=session)) for _ in range(2))
    wait_for(lambda: disk.rows)
    client.ask(p.CloseRequest(session=session), p.DoneReply)
    wait_for(lambda: not source.exists())
    assert disk.rows < 100
    replies: dict[int, p.Message] = {}
    while not {first, second} <= set(replies):
        reply, _ = client.receive(20)
        replies[reply.id] = reply
    assert replies[first].tick == 100  # it had been read by then
    assert (replies[second].code, "/" in replies[second].message) == ("unknown_session", False)


def test_a_server_ends_in_the_midst_of_branches_of_a_long_recording(tiny_world_folder, tiny_scene, tmp_path):
    folder = tmp_path / "kept"
    with serve_process(tiny_world_folder, tiny_scene, "--recordings", str(folder)) as (process, address):
        client = Client(address, "test", patience=60)
        session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
        for _ in range(2):
            client.ask(p.StepRequest(session=session, actions=[Action()] * 256, frames="none"), p.StepReply)
        for _ in range(7):
            client.send(p.BranchRequest(session=session, tick=500))
        client.ask(p.OpenRequest(), p.OpenReply)  # after one slice of them, at the most
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and process.stderr.read() == ""
        assert time.monotonic() - began < 3
        client.close()
    assert list(folder.iterdir()) == []


def files(folder: Path, kind: str = "playhead") -> list[Path]:
    """Files of a kind in a server's own folder."""
    return list(folder.glob(f".unsaved-*/*.{kind}"))
