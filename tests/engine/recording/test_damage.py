"""Whatever happened to a file: one clear sentence, never a crash; and what is whole is saved."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from playhead.engine.recording.edit import repair
from playhead.engine.recording.finding import Summary
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.replay import verify
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Bookmark, Point, Tree
from playhead.scenes.scene import Scene
from playhead.world.context import Context
from playhead.world.world import World
from tests.conftest import BUTTONS, THOROUGH
from tests.engine.recording.plays import play_branches


@pytest.fixture(scope="module")
def whole(tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return play_branches(tiny_world, tmp_path_factory.mktemp("whole") / "play.playhead").read_bytes()


def ticks(tree: Tree) -> dict[tuple[int, int], bytes]:
    return {
        (branch.id, number): played.hash
        for branch in tree.branches.values()
        for number, played in enumerate(branch.ticks, branch.first + 1)
    }


def check(data: bytes, whole: bytes, folder: Path, world: World) -> None:
    """Reads damaged bytes in every way; whatever is read or saved is a part of what there was."""
    file, out = folder / "play.playhead", folder / "out.playhead"
    out.unlink(missing_ok=True)
    file.write_bytes(whole)
    before = ticks(Recording.read(file).tree)
    file.write_bytes(data)
    for read in (Recording.read, Summary.read):
        try:
            found = read(file)
        except RecordingError as error:
            assert "\n" not in str(error) and str(file) in str(error)
        else:
            if isinstance(found, Recording):
                assert ticks(found.tree) == before
                found.thumbnails()
    try:
        repair(file, out)
    except RecordingError as error:
        assert "\n" not in str(error)
        assert not out.exists()
    else:
        saved = Recording.read(out)
        assert not saved.problems
        assert ticks(saved.tree).items() <= before.items()
        assert saved.tree.count == 0 or verify(saved, world) is None
    assert file.read_bytes() == data
    assert sorted(path.name for path in folder.iterdir()) in (
        ["out.playhead", "play.playhead"],
        ["play.playhead"],
    )


@settings(max_examples=20 * THOROUGH, deadline=None)
@given(data=st.data())
def test_flipped_bits(data, whole, tmp_path_factory, tiny_world):
    torn = bytearray(whole)
    points = st.one_of(st.integers(0, 200), st.integers(0, len(whole) - 1))
    for at in data.draw(st.lists(points, min_size=1, max_size=8)):
        torn[at] ^= 1 << data.draw(st.integers(0, 7))
    check(bytes(torn), whole, tmp_path_factory.mktemp("flipped"), tiny_world)


def test_a_scene_whose_archive_has_lost_its_list(whole, tmp_path, tiny_world):
    """The end of the archive is there, by which it is taken for one."""
    assert b"PK\1\2" in whole
    check(whole.replace(b"PK\1\2", b"PK\1\3"), whole, tmp_path, tiny_world)


@settings(max_examples=10 * THOROUGH, deadline=None)
@given(data=st.data())
def test_cut_and_overwritten_parts(data, whole, tmp_path_factory, tiny_world):
    end = data.draw(st.integers(0, len(whole)))
    torn = bytearray(whole[:end])
    if data.draw(st.booleans()):
        torn = bytearray(whole)
        length = data.draw(st.integers(1, 9000))
        torn[end : end + length] = data.draw(st.sampled_from([b"\0", b"\xff", b"S"])) * len(
            torn[end : end + length]
        )
    check(bytes(torn), whole, tmp_path_factory.mktemp("cut"), tiny_world)


cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.sampled_from(["../../etc/passwd", "[[]]", "\x1b[2J", "NaN", '{"name": "' + "x" * 5000 + '"}']),
)
columns = st.sampled_from(
    [
        (table, column)
        for table, names in {
            "recording": "key value",
            "plays": "id time environment",
            "scenes": "id fields context seal",
            "branches": "id parent first scene seed play start time seal",
            "ticks": "branch tick action steps source time took hash seal",
            "bookmarks": "id branch tick name time",
            "thumbnails": "branch tick jpeg",
        }.items()
        for column in names.split()
    ]
)


@settings(max_examples=40 * THOROUGH, deadline=None)
@given(where=columns, value=cells, row=st.integers(0, 30))
@example(where=("bookmarks", "branch"), value="\x1b[2J", row=0)
def test_hostile_values(where, value, row, whole, tmp_path_factory):
    """Any value in any cell: huge counts, path names, what a terminal would obey, values of another type."""
    file = tmp_path_factory.mktemp("hostile") / "play.playhead"
    file.write_bytes(whole)
    table, column = where
    base = sqlite3.connect(file, isolation_level=None)
    keys = base.execute(f"SELECT * FROM {table}").fetchall()
    names = [part[0] for part in base.execute(f"SELECT * FROM {table}").description]
    chosen = keys[row % len(keys)]
    condition = " AND ".join(f"{name} IS ?" for name in names)
    try:
        base.execute(f"UPDATE {table} SET {column} = ? WHERE {condition}", (value, *chosen))
    except (sqlite3.IntegrityError, UnicodeEncodeError):
        return  # SQLite itself does not let such a value in
    finally:
        base.close()
    try:
        found = Recording.read(file)
    except RecordingError as error:
        assert "\n" not in str(error) and "\x1b" not in str(error)
    else:
        assert table in ("plays", "bookmarks", "thumbnails") or value == chosen[names.index(column)]
        assert not any("\x1b" in mark.name for mark in found.tree.bookmarks)
    try:
        repair(file, file.with_name("out.playhead"))
    except RecordingError as error:
        assert "\n" not in str(error)
    else:
        Recording.read(file.with_name("out.playhead"))


@pytest.mark.parametrize(("table", "column"), [("plays", "time"), ("bookmarks", "time")])
@pytest.mark.parametrize("value", [1e300, -1.0, float("inf"), "soon"])
def test_a_time_that_no_calendar_has_is_damage(table, column, value, whole, tmp_path):
    file = tmp_path / "play.playhead"
    file.write_bytes(whole)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as base:
        base.execute(f"UPDATE {table} SET {column} = ?", (value,))
    with pytest.raises(RecordingError, match=r"the time .* is none"):
        Recording.read(file)


def test_the_scenes_of_a_file_unpack_to_what_a_machine_can_hold(tiny_world, tmp_path):
    """Eight megabytes of nothing are a few kilobytes in a file, which may hold them forty times."""
    frames = np.zeros((40, 256, 256, 3), np.uint8)
    context = Context(frames, np.zeros((40, len(BUTTONS)), np.uint8))
    recorder = Recorder(tmp_path / "large.playhead", tiny_world)
    for number in range(1, 41):
        recorder.add_scene(number, Scene("large", "Large", "", "tiny", 0, context))
    recorder.add_bookmark(Bookmark(1, "here", Point(1, 0), 0.0))  # a file in which nothing is goes again
    recorder.close()
    assert not recorder.failure
    with pytest.raises(RecordingError, match="its scenes unpack to more than 256 MB"):
        Recording.read(recorder.path)


def test_a_foreign_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "play.playhead"
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE ticks (tick INTEGER)")
    base.close()
    with pytest.raises(RecordingError, match="another program"):
        Recording.read(file)
    with pytest.raises(RecordingError, match="another program"):
        repair(file, tmp_path / "out.playhead")


def test_a_view_in_the_place_of_a_table_is_not_looked_at(whole: bytes, tmp_path: Path) -> None:
    """A query without end, hidden behind the name of a table."""
    file = tmp_path / "play.playhead"
    file.write_bytes(whole)
    base = sqlite3.connect(file)
    base.execute("DROP TABLE bookmarks")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS id, i, i, i, i FROM n"
    base.execute(f"CREATE VIEW bookmarks AS {endless}")
    base.commit()
    base.close()
    with pytest.raises(RecordingError, match="other tables"):
        Recording.read(file)
