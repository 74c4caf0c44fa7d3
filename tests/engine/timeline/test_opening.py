"""What opening a recorded play promises: its own file, or one that is gone on with, or a clear word."""

from pathlib import Path

import pytest

from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.opening import continued, new_timeline
from playhead.scenes.scene import Scene, load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import make_tiny_world


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def scene(tiny_scene: Path) -> Scene:
    return load_scene(tiny_scene)


def play(world: World, scene: Scene, folder: Path | None, ticks: int = 5) -> Path | None:
    timeline = new_timeline(world, scene, folder)
    session = Session(world, scene.context, scene.seed, scene)
    timeline.begin(session)
    for _ in range(ticks):
        timeline.step(session, Action())
    timeline.close()
    return timeline.recorder.path if timeline.recorder is not None else None


def test_every_play_has_a_file_of_its_own_named_after_time_and_scene(tiny_world, scene, tmp_path):
    first, second = (play(tiny_world, scene, tmp_path / "recordings") for _ in range(2))
    assert first != second and "tiny-scene" in first.name
    assert Recording.read(first).scene(1).title == "A tiny scene"


def test_a_play_in_which_nothing_happened_leaves_no_file(tiny_world, scene, tmp_path):
    assert not play(tiny_world, scene, tmp_path / "recordings", ticks=0).exists()


def test_without_a_folder_nothing_is_written(tiny_world, scene, home):
    assert play(tiny_world, scene, None) is None
    assert not home.exists()


def test_a_folder_that_cannot_be_is_said_and_play_goes_on(tiny_world, scene, tmp_path):
    (tmp_path / "recordings").write_text("no folder")
    timeline = new_timeline(tiny_world, scene, tmp_path / "recordings")
    assert timeline.recorder is None and "recordings is no folder" in timeline.failure
    session = Session(tiny_world, scene.context, scene.seed, scene)
    timeline.begin(session)
    timeline.step(session, Action())
    assert timeline.head == Point(1, 1)


def test_another_world_cannot_go_on_with_it(tiny_world, scene, tmp_path):
    recording = Recording.read(play(tiny_world, scene, tmp_path))
    with pytest.raises(RecordingError, match="another world: the generator's weights"):
        continued(recording, Point(1, 3), make_tiny_world(seed=1))


def test_what_looks_different_on_this_machine_is_said(tiny_world, scene, tmp_path):
    """A recording with another frame's hash, made where torch was another, stands for another machine's."""
    recording = Recording.read(play(tiny_world, scene, tmp_path))
    draft = draft_of(recording, lambda branch: branch.last)
    draft.tree.branches[1].ticks[2].hash = bytes(16)
    draft.plays[1][1]["torch"] = "1.0"
    write(tmp_path / "other.playhead", draft)
    timeline, session, remark = continued(
        Recording.read(tmp_path / "other.playhead"), Point(1, 3), tiny_world
    )
    assert "does not look as it did" in remark and "the version of torch (recorded 1.0" in remark
    assert session.tick == 3 and not timeline.exact
    timeline.begin(session)
    timeline.step(session, Action())
    assert timeline.head == Point(2, 4)
    timeline.close()


def test_a_copy_that_went_another_way_does_not_take_the_others_snapshots(any_world, scene, tmp_path):
    """Both copies have a branch 2; what is kept on this machine of the one is not of the other."""
    file = play(any_world, scene, tmp_path, ticks=4)
    copy = tmp_path / "copy.playhead"
    copy.write_bytes(file.read_bytes())
    seen = {}
    for path, button in ((file, "forward"), (copy, "back")):
        timeline, session, _ = continued(Recording.read(path), Point(1, 4), any_world)
        timeline.seeker.interval = 2
        timeline.begin(session)
        seen[path] = [timeline.step(session, Action(frozenset({button}))).tobytes() for _ in range(6)]
        timeline.close()
    assert seen[file] != seen[copy]
    for path in (file, copy):
        timeline, session, remark = continued(Recording.read(path), Point(2, 9), any_world)
        assert session.frames.tobytes() == seen[path][4] and not remark
        timeline.close()
