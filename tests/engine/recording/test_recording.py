"""What a recording promises: it comes back bit for bit, or says in a sentence why it cannot."""

import sqlite3
from pathlib import Path

import pytest

from engine.recording.reader import Recording, verify
from engine.recording.recorder import Recorder, RecordingError
from engine.session import Session
from tests.conftest import make_tiny_context, make_tiny_world
from world.action import Action
from world.world import World

TICKS = 30


@pytest.fixture
def file(tiny_world: World, tmp_path: Path) -> Path:
    session = Session(tiny_world, make_tiny_context(), 5)
    recorder = Recorder(tmp_path / "play.playhead", session)
    for number in range(TICKS):
        action = Action(frozenset({"forward"} if number % 3 else ()))
        recorder.add(session.tick + 1, action, session.steps, "script", session.step(action))
    recorder.close()
    assert not recorder.failure
    return recorder.path


def test_a_recording_replays_bit_for_bit(file: Path, tiny_world: World) -> None:
    recording = Recording.read(file)
    assert len(recording.ticks) == TICKS
    assert verify(recording, tiny_world) is None


def test_other_weights_are_found_and_named(file: Path) -> None:
    found = verify(Recording.read(file), make_tiny_world(seed=1))
    assert found is not None and found.tick == 0
    assert any("generator's weights" in cause for cause in found.causes)


def test_a_changed_action_is_found_at_its_tick(file: Path, tiny_world: World) -> None:
    with sqlite3.connect(file) as base:
        base.execute("UPDATE ticks SET action = '[[\"back\"], {}]' WHERE tick = 17")
    base.close()
    found = verify(Recording.read(file), tiny_world)
    assert found is not None and found.tick == 17


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_file_is_one_sentence(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RecordingError, match=r"play\.playhead"):
        Recording.read(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("PRAGMA user_version = 2", "schema 2"),
        ("PRAGMA application_id = 7", "another program"),
        ("DELETE FROM ticks WHERE tick = 4", "lacks tick 4"),
        ("DELETE FROM recording WHERE key = 'seed'", "damaged"),
        ("UPDATE recording SET value = '-1' WHERE key = 'seed'", "no seed"),
        ("UPDATE ticks SET action = '[[1' WHERE tick = 4", "damaged"),
        ("UPDATE recording SET value = 3 WHERE key = 'world'", "damaged"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: str, words: str) -> None:
    base = sqlite3.connect(file)
    base.execute(change)
    base.commit()
    base.close()
    with pytest.raises(RecordingError, match=words):
        Recording.read(file)


def test_nothing_is_overwritten(file: Path, tiny_world: World) -> None:
    before = file.read_bytes()
    with pytest.raises(RecordingError, match="there already"):
        Recorder(file, Session(tiny_world, make_tiny_context(), 5))
    assert file.read_bytes() == before
