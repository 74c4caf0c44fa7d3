"""One play at a time is recorded to a file; whoever comes second is told, and loses nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.file import InUseError
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import ChangedError, Recorder
from playhead.engine.recording.replay import verify
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.timeline.opening import continued
from playhead.world.action import Action
from playhead.world.world import World
from tests.engine.recording.plays import TICKS, play


def step(timeline, session, count: int) -> None:
    for _ in range(count):
        timeline.step(session, Action(frozenset({"forward"})))


def test_three_plays_that_go_on_with_one_recording_are_recorded(tiny_world: World, tmp_path: Path) -> None:
    file = play(tiny_world, tmp_path)
    kept = Recording.read(file)
    opened = [continued(kept, Point(1, TICKS - 10 * n), tiny_world) for n in range(3)]
    assert [remark for *_, remark in opened] == [
        "",
        "another play is recorded there, so this one goes on in play-2.playhead",
        "another play is recorded there, so this one goes on in play-3.playhead",
    ]
    for number, (timeline, session, _) in enumerate(opened, 1):
        step(timeline, session, number)
        timeline.bookmark(f"of {number}")
    for timeline, *_ in opened:
        timeline.close()
        assert not timeline.failure
    for number, name in enumerate(("play", "play-2", "play-3"), 1):
        recording = Recording.read(tmp_path / f"{name}.playhead")
        assert recording.sealed and recording.tree.count == TICKS + number
        assert recording.tree.bookmarks[-1].name == f"of {number}"
        assert verify(recording, tiny_world) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "play-2.playhead",
        "play-3.playhead",
        "play.playhead",
    ]


def test_one_that_read_the_file_before_another_went_on_with_it_goes_on_after_that(
    tiny_world: World, tmp_path: Path
) -> None:
    file = play(tiny_world, tmp_path)
    early = Recording.read(file)
    timeline, session, _ = continued(Recording.read(file), Point(1, TICKS), tiny_world)
    step(timeline, session, 3)
    timeline.close()
    with pytest.raises(ChangedError, match="open it again"):
        Recorder.resume(early, tiny_world)
    timeline, session, remark = continued(early, Point(1, 5), tiny_world)
    step(timeline, session, 4)
    timeline.close()
    assert not remark and not timeline.failure
    recording = Recording.read(file)
    assert recording.tree.count == TICKS + 7 and len(recording.plays) == 3
    assert verify(recording, tiny_world) is None


def test_a_file_that_its_first_play_still_records_is_in_use_and_may_be_copied(
    tiny_world: World, tmp_path: Path
) -> None:
    first, session, _ = continued(Recording.read(play(tiny_world, tmp_path)), Point(1, TICKS), tiny_world)
    step(first, session, 2)
    first.recorder.flush()
    now = Recording.read(first.recorder.path)
    with pytest.raises(InUseError, match="is being recorded by another play"):
        Recorder.resume(now, tiny_world)
    write(tmp_path / "copy.playhead", draft_of(now, lambda branch: branch.last))  # as the edit commands do
    step(first, session, 2)
    first.close()
    assert not first.failure
    assert Recording.read(first.recorder.path).tree.count == TICKS + 4
    assert Recording.read(tmp_path / "copy.playhead").tree.count == TICKS + 2


def test_a_file_is_let_go_of_by_whatever_thread_closes_it(tiny_world: World, tmp_path: Path) -> None:
    file = play(tiny_world, tmp_path)
    recorder = Recorder.resume(Recording.read(file), tiny_world)
    closing = threading.Thread(target=recorder.close)
    closing.start()
    closing.join()
    assert list(tmp_path.iterdir()) == [file]
    Recorder.resume(Recording.read(file), tiny_world).close()


KILLED = """
import os, sys
from pathlib import Path
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from tests.conftest import make_tiny_world
Recorder.resume(Recording.read(Path(sys.argv[1])), make_tiny_world())
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="others have no SIGKILL")
def test_one_that_was_killed_leaves_the_file_to_others(tiny_world: World, tmp_path: Path) -> None:
    file = play(tiny_world, tmp_path)
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    recording = Recording.read(file)
    assert len(recording.plays) == 2
    Recorder.resume(recording, tiny_world).close()
    assert len(Recording.read(file).plays) == 3


def test_of_two_that_write_one_new_file_at_once_one_is_told(tiny_world: World, tmp_path: Path) -> None:
    kept = Recording.read(play(tiny_world, tmp_path))
    out, said = tmp_path / "out.playhead", []
    together = threading.Barrier(8)

    def save() -> None:
        together.wait()
        try:
            write(out, draft_of(kept, lambda branch: branch.last))
        except RecordingError as error:
            said.append(str(error))

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 7 and all("is there already" in sentence for sentence in said)
    assert Recording.read(out).tree.count == TICKS
