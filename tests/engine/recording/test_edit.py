"""What looking after recordings promises: new files of what is whole, the old ones as they were."""

import sqlite3
import sys
from pathlib import Path

import pytest

from playhead.engine.recording.edit import merge, repair, split, trim
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.main import main
from playhead.world.world import World
from tests.conftest import make_tiny_world
from tests.engine.recording.plays import play_branches


@pytest.fixture
def file(tiny_world: World, tmp_path: Path) -> Path:
    return play_branches(tiny_world, tmp_path / "play.playhead")


def shape(recording: Recording) -> dict[int, tuple[Point | None, int]]:
    return {branch.id: (branch.parent, branch.last) for branch in recording.tree.branches.values()}


def all_equal(recording: Recording, world: World) -> bool:
    return all(verify(recording, world, branch) is None for branch in recording.tree.branches)


def test_trimming_leaves_what_came_before(file: Path, tmp_path: Path, tiny_world: World) -> None:
    before, out = file.read_bytes(), tmp_path / "out.playhead"
    found = trim(file, "2:8", out)
    assert shape(found) == {1: (None, 10), 2: (Point(1, 6), 8)}
    assert [mark.point for mark in found.tree.bookmarks] == [Point(1, 10)]
    assert all_equal(found, tiny_world)
    assert file.read_bytes() == before
    assert found.id != Recording.read(file).id
    with pytest.raises(RecordingError, match="there already"):
        trim(file, "2:8", out)


def test_a_branch_gets_a_file_of_its_own(file: Path, tmp_path: Path, tiny_world: World) -> None:
    found = split(file, 3, tmp_path / "out.playhead")
    assert shape(found) == {1: (None, 6), 2: (Point(1, 6), 9), 3: (Point(2, 9), 11)}
    paths = (recording.tree.path(3) for recording in (found, Recording.read(file)))
    assert all((a.action, a.time, a.hash) == (b.action, b.time, b.hash) for a, b in zip(*paths, strict=True))
    assert all_equal(found, tiny_world)
    with pytest.raises(RecordingError, match="no branch 9"):
        split(file, 9, tmp_path / "other.playhead")


def test_what_was_split_is_merged_again_without_doubles(
    file: Path, tmp_path: Path, tiny_world: World
) -> None:
    parts = [split(file, branch, tmp_path / f"{branch}.playhead").path for branch in (3, 1, 2)]
    found = merge(parts, tmp_path / "out.playhead")
    whole = Recording.read(file)
    assert shape(found) == shape(whole)
    assert len(found.scenes) == len(found.plays) == 1
    assert {mark.point for mark in found.tree.bookmarks} == {mark.point for mark in whole.tree.bookmarks}
    assert all_equal(found, tiny_world)


def test_other_plays_of_the_world_come_beside(file: Path, tmp_path: Path, tiny_world: World) -> None:
    other = play_branches(tiny_world, tmp_path / "other.playhead", seed=8, bend=2)
    found = merge([file, other], tmp_path / "out.playhead")
    assert len(found.tree.branches) == 6 and len(found.plays) == 2 and len(found.tree.bookmarks) == 6
    assert found.tree.branches[5].parent == Point(4, 2)
    assert all_equal(found, tiny_world)
    foreign = play_branches(make_tiny_world(seed=1), tmp_path / "foreign.playhead")
    with pytest.raises(RecordingError, match="two worlds: the generator's weights"):
        merge([file, foreign], tmp_path / "more.playhead")


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        ("SELECT 1", {1: 10, 2: 11, 3: 11}),
        ("UPDATE ticks SET steps = 1 WHERE branch = 1 AND tick = 8", {1: 7, 2: 11, 3: 11}),
        ("UPDATE ticks SET hash = x'00' WHERE branch = 1 AND tick = 5", {1: 4}),
        ("DELETE FROM ticks WHERE branch = 2 AND tick = 9", {1: 10, 2: 8}),
        ("UPDATE branches SET seed = 'seven' WHERE id = 3", {1: 10, 2: 11}),
        ("UPDATE recording SET value = x'ff' WHERE key = 'title'", {1: 10, 2: 11, 3: 11}),
        ("DELETE FROM recording WHERE key = 'seal'", {1: 10, 2: 11, 3: 11}),
        ("PRAGMA application_id = 3", {1: 10, 2: 11, 3: 11}),
        ("UPDATE thumbnails SET jpeg = x'00'", {1: 10, 2: 11, 3: 11}),
        ("DELETE FROM bookmarks WHERE id = 1", {1: 10, 2: 11, 3: 11}),
    ],
)
def test_repairing_saves_what_is_whole(
    file: Path, tmp_path: Path, tiny_world: World, damage: str, left: dict[int, int]
) -> None:
    base = sqlite3.connect(file)
    base.execute(damage)
    base.commit()
    base.close()
    before = file.read_bytes()
    repair(file, tmp_path / "out.playhead")
    found = Recording.read(tmp_path / "out.playhead")
    assert {branch.id: branch.last for branch in found.tree.branches.values()} == left
    assert all_equal(found, tiny_world)
    assert file.read_bytes() == before


def test_repairing_puts_a_new_head_on(file: Path, tmp_path: Path, tiny_world: World) -> None:
    data = file.read_bytes()
    file.write_bytes(bytes(24) + data[24:])
    found = repair(file, tmp_path / "out.playhead")
    assert "its first bytes are damaged" in found.problems
    assert all_equal(Recording.read(tmp_path / "out.playhead"), tiny_world)


@pytest.mark.parametrize("pages", [0, 1, 2, 5])
def test_what_cannot_be_repaired_is_named_as_it_was_given(file: Path, tmp_path: Path, pages: int) -> None:
    file.write_bytes(file.read_bytes()[: 4096 * pages + 100])
    with pytest.raises(RecordingError) as error:
        repair(file, tmp_path / "out.playhead")
    assert str(error.value).startswith(f"{file} ")
    assert not (tmp_path / "out.playhead").exists()


def test_the_commands(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PLAYHEAD_RECORDINGS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0 or (end.value.code, said.err.count("\n")) == (2, 1)
        return said.out + said.err

    assert "A play" in run("recordings") and "tiny" in run("recordings", "list")
    said = run("recordings", "info", "play")
    assert "bookmark 3:11 bookmark 3" in said and "1:6" in said and "damaged" not in said
    assert "12 ticks" in run("recordings", "trim", "play", "--to", "2:8", "--out", tmp_path / "a.playhead")
    assert "11 ticks are in" in run("recordings", "split", file, "--branch", 3)
    assert (tmp_path / "play-branch-3.playhead").is_file()
    assert "nothing is damaged" in run("recordings", "repair", file)
    assert "17 ticks of 3 branches" in run(
        "recordings", "merge", file, "play-branch-3", "--out", tmp_path / "m.playhead"
    )
    assert "no recording `nowhere`" in run("recordings", "info", "nowhere")
    (tmp_path / "torn.playhead").write_bytes(file.read_bytes()[:9000])
    assert "damaged" in run("recordings")
    assert "torn.playhead" in run("recordings", "info", "torn")
    assert "branch 2 has ticks 0 to 11, so none from 0 to 12" in run(
        "replay", file, "--branch", 2, "--to", 12
    )
    assert "no branch 4; there are 1, 2, 3" in run("replay", file, "--branch", 4)
    assert "give its folder by --world" in run("replay", file, "--verify")
