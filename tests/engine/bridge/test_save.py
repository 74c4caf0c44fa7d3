"""Save recording over the bridge: into one folder, by a name, and what is saved replays bit for bit."""

import numpy as np
import pytest

from playhead.engine.bridge import protocol as p
from playhead.engine.bridge.client import Client
from playhead.engine.bridge.hall import Hall
from playhead.engine.bridge.protocol import BridgeError
from playhead.engine.bridge.server import Server, serve_in_background
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import replay
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from tests.conftest import BUTTONS


@pytest.fixture
def recorded(tiny_world, tiny_scene, tmp_path):
    """A client of a server that saves, and the folder."""
    folder = tmp_path / "kept"
    hall = Hall([tiny_world], [load_scene(tiny_scene)])
    server = Server(hall, "tcp://127.0.0.1:*", recordings=folder)
    thread = serve_in_background(server)
    client = Client(server.address, "test", patience=20)
    yield client, folder
    client.close()
    server.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert all(file.suffix == ".playhead" for file in folder.iterdir())  # what was not saved is gone


def step(client: Client, session: str, count: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    held = [Action(frozenset(b for b in BUTTONS if draws.random() < 0.5)) for _ in range(count)]
    return client.ask(p.Step(session=session, actions=held), p.Stepped)[1]


def test_what_was_played_is_saved_with_its_branches_and_replays_bit_for_bit(recorded, tiny_world):
    client, folder = recorded
    session = client.ask(p.Open(), p.Opened)[0].session
    first = step(client, session, 5, seed=0)
    kept = client.ask(p.Snapshot(session=session), p.Snapshotted)[0].snapshot
    second = step(client, session, 6, seed=1)
    client.ask(p.Restore(session=session, snapshot=kept), p.Observed)
    other = step(client, session, 3, seed=2)
    saved = client.ask(p.Save(session=session, name="walk"), p.Saved)[0]
    assert (saved.file, saved.ticks) == ("walk.playhead", 14)
    recording = Recording.read(folder / "walk.playhead")
    for branch, wanted in ((1, [*first, *second]), (2, [*first, *other])):
        ticks = [r for r in replay(recording, tiny_world, branch) if r.played is not None]
        assert all(r.equal for r in ticks) and {r.played.source for r in ticks} == {"bridge"}
        assert np.array_equal(np.concatenate([r.frames for r in ticks]), wanted)


@pytest.mark.parametrize("kind", ["fork", "branch"])
def test_a_twin_is_recorded_from_the_start_on(recorded, tiny_world, kind):
    client, folder = recorded
    session = client.ask(p.Open(), p.Opened)[0].session
    step(client, session, 3, seed=4)
    client.ask(p.Reset(session=session), p.Observed)
    past = step(client, session, 6, seed=0)
    request = p.Fork(session=session) if kind == "fork" else p.Branch(session=session, tick=4)
    twin = client.ask(request, p.Opened)[0]
    assert twin.tick == (6 if kind == "fork" else 4)
    more = step(client, twin.session, 3, seed=1)
    client.ask(p.Save(session=twin.session, name="twin"), p.Saved)
    ticks = [r for r in replay(Recording.read(folder / "twin.playhead"), tiny_world) if r.played is not None]
    assert all(r.equal for r in ticks)
    assert np.array_equal(np.concatenate([r.frames for r in ticks]), [*past[: twin.tick], *more])


def test_a_twin_of_a_moment_before_the_last_way_back_is_recorded_too(recorded, tiny_world):
    client, folder = recorded
    session = client.ask(p.Open(), p.Opened)[0].session
    past = step(client, session, 4, seed=0)
    kept = client.ask(p.Snapshot(session=session), p.Snapshotted)[0].snapshot
    step(client, session, 3, seed=1)
    client.ask(p.Restore(session=session, snapshot=kept), p.Observed)
    step(client, session, 2, seed=2)
    for tick in (0, 2, 4):
        twin = client.ask(p.Branch(session=session, tick=tick), p.Opened)[0].session
        more = step(client, twin, 3, seed=3)
        client.ask(p.Save(session=twin, name=f"twin-{tick}"), p.Saved)
        found = list(replay(Recording.read(folder / f"twin-{tick}.playhead"), tiny_world))[1:]
        assert all(r.equal for r in found)
        assert np.array_equal(np.concatenate([r.frames for r in found]), [*past[:tick], *more])


def test_a_recording_is_saved_under_a_new_name_in_the_folder_or_not_at_all(recorded, server, connect):
    client, folder = recorded
    session = client.ask(p.Open(), p.Opened)[0].session
    step(client, session, 2, seed=0)
    paths = ("../walk", "/tmp/walk", "a/b", "", ".hidden")
    for name in (*paths, "x" * 65, "nul\0", "a\n", "\n", "a\r", "\u0661"):
        with pytest.raises(BridgeError) as error:
            client.ask(p.Save(session=session, name=name), p.Saved)
        assert error.value.code == "malformed"
    client.ask(p.Save(session=session, name="walk"), p.Saved)
    before = (folder / "walk.playhead").read_bytes()
    step(client, session, 2, seed=0)
    with pytest.raises(BridgeError, match="choose another name"):
        client.ask(p.Save(session=session, name="walk"), p.Saved)
    assert [f.name for f in folder.iterdir() if not f.name.startswith(".unsaved-")] == ["walk.playhead"]
    assert (folder / "walk.playhead").read_bytes() == before

    unrecorded = connect()
    session = unrecorded.ask(p.Open(), p.Opened)[0].session
    with pytest.raises(BridgeError, match="--recordings FOLDER") as error:
        unrecorded.ask(p.Save(session=session, name="walk"), p.Saved)
    assert error.value.code == "refused"
