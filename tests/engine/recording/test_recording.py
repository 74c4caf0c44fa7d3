"""What a recording promises: it comes back bit for bit, or says in a sentence why it cannot."""

import gc
import os
import sqlite3
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.finding import Summary
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.replay import replay, verify
from playhead.engine.recording.schema import RecordingError, seal
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action
from playhead.world.size import MAX_STEPS
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world
from tests.engine.recording.plays import TICKS, play


@pytest.fixture
def file(tiny_world: World, tmp_path: Path) -> Path:
    return play(tiny_world, tmp_path)


def test_a_recording_replays_bit_for_bit(any_world: World, tmp_path: Path) -> None:
    recording = Recording.read(play(any_world, tmp_path))
    assert recording.tree.count == TICKS
    assert verify(recording, any_world) is None


def test_pythons_collector_does_not_look_at_every_tick(tiny_world: World, tmp_path: Path) -> None:
    """It holds up all threads while it does: seconds, where a server saves a recording of a million ticks."""
    draft = draft_of(Recording.read(play(tiny_world, tmp_path)), lambda branch: branch.last)
    draft.tree.branch(1).ticks *= 100
    draft = draft_of(replace(draft.source, tree=draft.tree), lambda branch: branch.last)
    write(tmp_path / "long.playhead", draft)
    gc.collect()
    before = len(gc.get_objects())
    recording = Recording.read(tmp_path / "long.playhead")
    copied = draft_of(recording, lambda branch: branch.last)
    gc.collect()
    assert recording.tree.count == copied.tree.count == 100 * TICKS
    assert len(gc.get_objects()) - before < 100 * TICKS / 2  # other threads of this process make some, too


def test_everything_that_was_played_is_there(file: Path, tiny_world: World) -> None:
    recording = Recording.read(file)
    assert (recording.title, recording.world, recording.rate) == ("A play", "tiny", 17.5)
    path = recording.tree.path(1)
    assert [bool(played.action.buttons) for played in path] == [bool(n % 3) for n in range(TICKS)]
    assert {played.source for played in path} == {"keyboard"}
    assert all(played.took > 0 and played.time > 1e9 for played in path)
    assert recording.tree.parse("the end") == recording.tree.parse("") == Point(1, TICKS)
    assert [point.tick for point, _ in recording.thumbnails()] == [0, 1]
    assert list(file.parent.iterdir()) == [file]


def test_a_part_can_be_replayed(file: Path, tiny_world: World) -> None:
    moments = list(replay(Recording.read(file), tiny_world, first=10, last=12))
    assert [(moment.point, moment.equal) for moment in moments] == [(Point(1, n), True) for n in (10, 11, 12)]
    with pytest.raises(RecordingError, match="ticks 0 to 30"):
        list(replay(Recording.read(file), tiny_world, first=10, last=31))
    with pytest.raises(RecordingError, match="no branch 7; there are 1"):
        list(replay(Recording.read(file), tiny_world, branch=7))


def test_other_weights_are_found_and_named(file: Path) -> None:
    found = verify(Recording.read(file), make_tiny_world(seed=1))
    assert found is not None and found.point.tick == 0
    assert any("generator's weights" in cause for cause in found.causes)


def test_a_single_weight_is_found_at_the_first_tick_that_it_changes(file: Path) -> None:
    world = make_tiny_world()
    world.autoencoder.decoder[-1].bias.data[0] += 1  # changes every picture, the context's too
    found = verify(Recording.read(file), world)
    assert found is not None and found.point.tick == 0
    assert any("autoencoder's weights" in cause for cause in found.causes)


def test_a_weight_of_the_generator_is_found_at_the_first_dreamed_tick(file: Path) -> None:
    world = make_tiny_world()
    world.generator.head.head.weight.data[0, 0] += 1
    found = verify(Recording.read(file), world)
    assert found is not None and found.point.tick == 1
    assert any("generator's weights" in cause for cause in found.causes)


def test_another_number_of_steps_is_found_and_named(file: Path, tiny_world: World) -> None:
    found = verify(Recording.read(file), tiny_world, steps=1)
    assert found is not None and found.point.tick == 1
    assert found.causes == ["the denoise steps a tick (recorded 2, here 1)"]


def change(file: Path, *statements: str) -> None:
    base = sqlite3.connect(file)
    for statement in statements:
        base.execute(statement)
    base.commit()
    base.close()


@pytest.mark.parametrize("last", [0, 10, TICKS - 1])
def test_ticks_that_are_missing_at_the_end_are_missed(file: Path, last: int) -> None:
    change(file, "DELETE FROM bookmarks", f"DELETE FROM ticks WHERE tick > {last}")
    with pytest.raises(RecordingError, match="its last rows are missing"):
        Recording.read(file)


@pytest.mark.parametrize("bytes_lost", [1, 100, 4095])
def test_a_file_that_lacks_its_last_bytes_is_not_whole(file: Path, bytes_lost: int) -> None:
    file.write_bytes(file.read_bytes()[:-bytes_lost])
    with pytest.raises(RecordingError, match=r"play\.playhead"):
        Recording.read(file)


def test_a_recording_of_an_older_schema_is_read_and_gone_on_with(file: Path, tiny_world: World) -> None:
    change(file, "DELETE FROM recording WHERE key = 'end'", "PRAGMA user_version = 2")
    before = file.read_bytes()
    recording = Recording.read(file)
    assert not recording.sealed and recording.tree.count == TICKS and file.read_bytes() == before
    Recorder.resume(recording, tiny_world).close()
    assert Recording.read(file).sealed


def test_while_it_is_recorded_its_end_is_not_sealed(tiny_world: World, tmp_path: Path) -> None:
    session = Session(tiny_world, make_tiny_context(), 5)
    recorder = Recorder(tmp_path / "play.playhead", tiny_world)
    timeline = Timeline(recorder)
    timeline.begin(session)
    timeline.step(session, Action())
    recorder.flush()
    assert not Recording.read(recorder.path).sealed
    timeline.close()
    assert Recording.read(recorder.path).sealed


def test_of_a_file_that_was_removed_nothing_is_said_to_be_kept(tiny_world: World, tmp_path: Path) -> None:
    session = Session(tiny_world, make_tiny_context(), 5)
    timeline = Timeline(Recorder(tmp_path / "play.playhead", tiny_world))
    timeline.begin(session)
    timeline.step(session, Action())
    timeline.recorder.flush()
    timeline.recorder.path.unlink()
    timeline.close()
    assert "the file was removed" in timeline.failure and "nothing of it is left" in timeline.failure


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permissions")
def test_a_recording_is_its_owners_own(tiny_world: World, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        file = play(tiny_world, tmp_path / "new" / "folder")
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_file_is_one_sentence(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RecordingError, match=r"play\.playhead"):
        Recording.read(file)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 4", "schema 4, and this Playhead reads 3; update"),
        ("PRAGMA user_version = 1", "schema 1, which only an older"),
        ("PRAGMA application_id = 7", "another program"),
        ("ALTER TABLE ticks ADD COLUMN more", "other tables"),
        ("DELETE FROM ticks WHERE tick = 4", "lacks tick 4"),
        ("DELETE FROM bookmarks", "its last rows are missing"),
        ("UPDATE ticks SET action = '[[\"back\"],{}]' WHERE tick = 17", "tick 17 of branch 1 was changed"),
        ("UPDATE ticks SET tick = 99999999999 WHERE tick = 30", "lacks tick 30"),
        ("UPDATE ticks SET hash = x'00' WHERE tick = 4", "tick 4 of branch 1 was changed"),
        ("UPDATE branches SET first = 99999999999", "branch 1 was changed"),
        ("UPDATE branches SET seed = '-1'", "seed -1"),
        ("UPDATE branches SET parent = 1", "not there"),
        ('UPDATE scenes SET fields = \'{"name": "../../x"}\'', "scene 1 was changed"),
        ("UPDATE scenes SET context = x'00'", "scene 1 was changed"),
        ("UPDATE bookmarks SET tick = 31", "nowhere"),
        ("DELETE FROM recording WHERE key = 'world'", "says of itself was changed"),
        ("UPDATE recording SET value = 3 WHERE key = 'world'", "damaged"),
        ("DELETE FROM plays", "lacks its scene, its play"),
    ],
)
def test_what_is_wrong_is_named(file: Path, statement: str, words: str) -> None:
    change(file, statement)
    before = file.read_bytes()
    with pytest.raises(RecordingError, match=words) as refused:
        Recording.read(file)
    assert "\n" not in str(refused.value)
    assert file.read_bytes() == before


def test_more_steps_than_a_tick_may_have_are_named_although_the_seal_is_right(file: Path) -> None:
    base, first = sqlite3.connect(file), "WHERE branch = 1 AND tick = 1"
    (before,) = base.execute("SELECT seal FROM branches WHERE id = 1").fetchone()
    row = base.execute(f"SELECT branch, tick, action, steps, source, time, took, hash FROM ticks {first}")
    number, tick, action, _, *rest = row.fetchone()
    sealed = seal(before, (number, tick, action, MAX_STEPS + 1, *rest))
    base.execute(f"UPDATE ticks SET steps = ?, seal = ? {first}", (MAX_STEPS + 1, sealed))
    base.commit()
    base.close()
    with pytest.raises(RecordingError, match="tick 1 of branch 1 has 9 steps, which cannot be"):
        Recording.read(file)


def test_play_does_not_run_ahead_of_a_slow_disk(tiny_world: World, tmp_path: Path) -> None:
    """A job that takes long stands for the disk: when a tick is handed over, two at most are unwritten."""
    session = Session(tiny_world, make_tiny_context(), 5)
    recorder = Recorder(tmp_path / "play.playhead", tiny_world)
    timeline = Timeline(recorder)
    timeline.begin(session)
    recorder.flush()
    for number in range(1, 8):
        if number % 3 == 0:
            recorder._put(lambda base: time.sleep(0.3))
        timeline.step(session, Action())
        recorder.wait()
        assert Summary.read(recorder.path).ticks >= number - 2
    timeline.close()


def test_nothing_is_overwritten(file: Path, tiny_world: World) -> None:
    before = file.read_bytes()
    with pytest.raises(RecordingError, match="there already"):
        Recorder(file, tiny_world)
    assert file.read_bytes() == before
