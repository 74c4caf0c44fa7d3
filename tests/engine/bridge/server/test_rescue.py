"""What a server that was killed has left is saved by the next one: all of it, and at nobody's cost."""

import signal
import time
from copy import copy
from pathlib import Path

import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.engine.bridge.conftest import SlowDisk, serve_process, wait_for
from tests.played import FIRST, record_play


def rescued(folder: Path) -> list[Path]:
    return sorted(folder.glob("rescued-*.playhead"))


def left(folder: Path) -> list[Path]:
    """All that is left of servers which were killed, with their locks."""
    return sorted(folder.glob(".unsaved-*"))


def leave(folder: Path, world: World, ticks: int) -> Path:
    """A recording of at least so many ticks, as if its server had been killed."""
    file = folder / ".unsaved-0123456789abcdef" / "0123456789abcdef.playhead"
    record_play(folder / "short.playhead", world)
    draft = draft_of(Recording.read(folder / "short.playhead"), lambda branch: branch.last)
    branch = draft.tree.branch(1)
    branch.ticks = [copy(played) for played in branch.ticks * -(-ticks // FIRST)]
    write(file, draft)
    (folder / "short.playhead").unlink()
    return file


def test_what_killed_servers_had_not_saved_is_saved_by_the_next_one(tiny_world_folder, tiny_scene, tmp_path):
    """Of every session that had played, but at most the last two ticks; once, and nothing is left behind."""
    options = tiny_world_folder, tiny_scene, "--recordings", str(tmp_path / "kept")
    with serve_process(*options) as (process, address):
        client = Client(address, "test", patience=60)
        for ticks in (12, 0, 30):
            session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
            if ticks:
                held = [Action(frozenset({"forward"}))] * ticks
                client.ask(p.StepRequest(session=session, actions=held, frames="none"), p.StepReply)
        process.send_signal(signal.SIGKILL)
        process.wait()
        client.close()
    folder = tmp_path / "kept"
    assert not rescued(folder)
    with serve_process(*options) as (process, _):
        wait_for(lambda: not left(folder))
        process.terminate()
        said = process.communicate(timeout=20)[1]
    recordings = [Recording.read(file) for file in rescued(folder)]
    few, many = sorted(recording.tree.count for recording in recordings)
    assert 10 <= few <= 12 and 28 <= many <= 30
    assert all(verify(recording, World.load(tiny_world_folder)) is None for recording in recordings)
    assert sorted(folder.iterdir()) == rescued(folder)
    for file in rescued(folder):
        assert f"a server was killed before this was saved, so it is now: {file}" in said


def test_sigterm_ends_a_server_in_the_midst_of_saving_and_the_next_saves_all(
    tiny_world, tiny_world_folder, tiny_scene, tmp_path
):
    file = leave(tmp_path, tiny_world, 60_000)
    before, ticks = file.read_bytes(), Recording.read(file).tree.count
    options = tiny_world_folder, tiny_scene, "--recordings", str(tmp_path)
    with serve_process(*options) as (process, _):
        wait_for(lambda: list(file.parent.glob("*.draft")))
        began = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0 and process.stderr.read() == ""
        assert time.monotonic() - began < 3
    assert sorted(tmp_path.iterdir()) == [file.parent] and list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == before
    with serve_process(*options):
        wait_for(lambda: not left(tmp_path))
    (saved,) = rescued(tmp_path)
    assert Recording.read(saved).tree.count == ticks


@pytest.mark.parametrize("kill", ["draft", "whole"])
def test_half_of_what_a_server_saved_that_was_killed_again_goes(
    tiny_world, tiny_world_folder, tiny_scene, tmp_path, kill
):
    file = leave(tmp_path, tiny_world, 100)
    half = file.with_name(".half.whole.17.draft") if kill == "draft" else file.with_suffix(".whole")
    half.write_bytes(b"half")
    with serve_process(tiny_world_folder, tiny_scene, "--recordings", str(tmp_path)):
        wait_for(lambda: not left(tmp_path))
    assert sorted(tmp_path.iterdir()) == rescued(tmp_path) and len(rescued(tmp_path)) == 1


def test_clients_are_served_while_it_is_saved(tiny_world, tiny_scene, tmp_path, monkeypatch):
    """Of hundreds of rows a few are copied before a client has opened, played and saved."""
    file = leave(tmp_path, tiny_world, 400)
    server = Server(
        Registry([tiny_world], [load_scene(tiny_scene)]), "tcp://127.0.0.1:*", recordings=tmp_path
    )
    disk = SlowDisk(monkeypatch, 0.02)
    server.rescue()
    thread = serve_in_background(server)
    wait_for(lambda: disk.rows)
    client = Client(server.address, "test", patience=20)
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    client.ask(p.StepRequest(session=session, actions=[Action()] * 3), p.StepReply)
    client.ask(p.SaveRequest(session=session, name="mine"), p.SaveReply)
    assert disk.rows < 400 and not rescued(tmp_path)
    client.close()
    server.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert file.exists() and Recording.read(tmp_path / "mine.playhead").tree.count == 3


def test_what_cannot_be_saved_stays_and_is_named(tiny_world, tiny_world_folder, tiny_scene, tmp_path):
    """And keeps nothing else from being saved."""
    file = leave(tmp_path, tiny_world, 20)
    broken = file.with_name("0000.playhead")
    broken.write_bytes(b"no recording")
    with serve_process(tiny_world_folder, tiny_scene, "--recordings", str(tmp_path)) as (process, _):
        wait_for(lambda: rescued(tmp_path) and not file.exists())
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert f"{broken}, which a server that was killed has left, cannot be saved: " in said
    assert broken.read_bytes() == b"no recording" and len(said.splitlines()) == 2
