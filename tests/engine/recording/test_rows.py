"""Rows: each is written with the seal that goes on from what it follows."""

import sqlite3

import pytest

from playhead.engine.recording.rows import Rows, Seals, branch_row, facts_of, scene_row, tick_row
from playhead.engine.recording.schema import TABLES, end_seal, facts_seal, seal
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point
from playhead.scenes.scene import Scene
from playhead.world.action import Action, ActionSpace

FACTS = seal(b"", ("facts",))


@pytest.fixture
def base() -> sqlite3.Connection:
    base = sqlite3.connect(":memory:", isolation_level=None)
    for statement in TABLES.values():
        base.execute(statement)
    return base


def tick(steps: int) -> PlayedTick:
    return PlayedTick(Action(), steps, "script", 1.5, 0.25, bytes(16))


def test_every_row_is_sealed_after_what_it_follows(base, tiny_context):
    rows, scene = Rows(base, Seals(FACTS)), Scene("a", "A", "", "tiny", 3, tiny_context)
    root, branch = Branch(1, None, 4, 3, 1, bytes(16)), Branch(2, Point(1, 1), 4, 3, 1, bytes(16))
    first, second, other = tick(1), tick(2), tick(3)
    rows.add_play(1, 0.5, {"machine": "one"})
    rows.add_scene(4, scene)
    rows.add_branch(root, None)
    rows.add_tick(Point(1, 1), first, root)
    rows.add_tick(Point(1, 2), second, first)
    rows.add_branch(branch, first)
    rows.add_tick(Point(2, 2), other, branch)
    of_scene = seal(FACTS, scene_row(4, scene))
    assert base.execute("SELECT id, seal FROM scenes").fetchall() == [(4, of_scene)]
    assert root.seal == seal(of_scene, branch_row(root))
    assert first.seal == seal(root.seal, tick_row(Point(1, 1), first))
    assert second.seal == seal(first.seal, tick_row(Point(1, 2), second))
    assert branch.seal == seal(first.seal, branch_row(branch))
    assert other.seal == seal(branch.seal, tick_row(Point(2, 2), other))
    written = base.execute("SELECT seal FROM branches UNION ALL SELECT seal FROM ticks").fetchall()
    assert [one for (one,) in written] == [x.seal for x in (root, branch, first, second, other)]


def test_scenes_that_were_read_are_gone_on_from(base):
    root = Branch(1, None, 4, 3, 1, bytes(16))
    Rows(base, Seals(FACTS, {4: b"of four"})).add_branch(root, None)
    assert root.seal == seal(b"of four", branch_row(root))


def test_an_end_is_sealed_and_opened_again(base):
    rows = Rows(base, Seals(FACTS))
    rows.add_bookmark(Bookmark(1, "the door", Point(1, 2), 0.5))
    rows.seal_end()
    assert base.execute("SELECT value FROM recording WHERE key = 'end'").fetchone() == (end_seal(base),)
    rows.open_end()
    assert not base.execute("SELECT value FROM recording").fetchall()


def test_the_first_picture_of_a_place_stays(base):
    rows = Rows(base, Seals(FACTS))
    for jpeg in (b"one", b"two"):
        rows.add_thumbnail(Point(1, 0), jpeg)
    assert base.execute("SELECT * FROM thumbnails").fetchall() == [(1, 0, b"one")]


def test_a_new_recording_says_what_it_is_of():
    facts = [facts_of("mine", "tiny", {"a": "b"}, 17.5, ActionSpace(("left",)), 2.0) for _ in range(2)]
    assert facts[0]["id"] != facts[1]["id"], "each has an id of its own"
    assert (facts[0]["title"], facts[0]["rate"], facts[0]["time"]) == (b"mine", b"17.5", b"2.0")
    assert len({facts_seal(one) for one in facts}) == 2
