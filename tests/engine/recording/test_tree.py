"""The tree of what was played: where branches begin and end, and what names a moment."""

import pytest

from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Tree
from playhead.world.action import Action


def grown() -> Tree:
    """1: ticks 1 to 4. 2 begins after 1:2 and has ticks 3 to 5. 3 begins after 2:4 and has tick 5. 5: a root.

    A tick's `hash` says where it was played, a root's `start` whose start it is.
    """
    tree = Tree()
    for number, parent, count in ((1, None, 4), (2, Point(1, 2), 3), (3, Point(2, 4), 1), (5, None, 0)):
        branch = Branch(number, parent, 1, 7, 1, start=f"start {number}".encode())
        for tick in range(branch.first + 1, branch.first + count + 1):
            branch.ticks.append(PlayedTick(Action(), 2, "script", 0.0, 0.0, f"{number}:{tick}".encode()))
        tree.branches[number] = branch
    return tree


def test_branches_know_where_they_begin_and_end():
    tree = grown()
    assert [(b.first, b.last) for b in tree.branches.values()] == [(0, 4), (2, 5), (4, 5), (0, 0)]
    assert (tree.newest, tree.count) == (5, 8)
    assert str(Point(2, 14)) == "2:14"


def test_the_way_to_a_branch_is_what_was_played_before_it_and_its_own():
    tree = grown()
    assert [b.id for b in tree.lineage(3)] == [1, 2, 3] and tree.root(3).id == 1
    assert [t.hash for t in tree.path(3)] == [b"1:1", b"1:2", b"2:3", b"2:4", b"3:5"]
    assert [t.hash for t in tree.path(2)] == [b"1:1", b"1:2", b"2:3", b"2:4", b"2:5"]
    assert [t.hash for t in tree.path(3, 3)] == [b"1:1", b"1:2", b"2:3"]
    assert tree.path(3, 0) == [] and tree.path(5) == []
    assert [[b.id for b in tree.children(n)] for n in (1, 2, 3, 5)] == [[2], [3], [], []]


def test_every_moment_is_named_by_the_branch_that_its_tick_was_played_in():
    tree = grown()
    played = [tree.check(Point(3, tick)) for tick in range(6)]
    assert played == [Point(1, 0), Point(1, 1), Point(1, 2), Point(2, 3), Point(2, 4), Point(3, 5)]
    assert [tree.end(n) for n in (1, 2, 3, 5)] == [Point(1, 4), Point(2, 5), Point(3, 5), Point(5, 0)]


def test_every_moment_has_its_tick_and_its_hash():
    tree = grown()
    ticks = [tree.tick(Point(3, tick)) for tick in range(6)]
    assert ticks[0] is None and ticks[1:] == tree.path(3)
    hashes = [tree.hash_at(Point(3, tick)) for tick in range(6)]
    assert hashes == [b"start 1", b"1:1", b"1:2", b"2:3", b"2:4", b"3:5"]
    assert tree.hash_at(Point(5, 0)) == b"start 5"


def test_what_comes_next_follows_a_tick_or_the_branch_that_has_none_yet():
    tree = grown()
    sealed = [tree.sealed(Point(3, tick)) for tick in range(6)]
    assert sealed == [tree.branches[1], *tree.path(3)] and tree.sealed(Point(5, 0)) is tree.branches[5]
    assert [branch.tip.hash for branch in tree.branches.values()] == [b"1:4", b"2:5", b"3:5", b"start 5"]
    tree.branches[6] = Branch(6, Point(2, 3), 1, 7, 1, start=b"2:3")
    assert tree.branches[6].tip is tree.branches[6] and tree.sealed(Point(6, 3)) is tree.tick(Point(2, 3))


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("", Point(3, 5)),
        ("  ", Point(3, 5)),
        ("3", Point(2, 3)),
        (" 0 ", Point(1, 0)),
        ("1:4", Point(1, 4)),
        ("2:0", Point(1, 0)),
        ("2:", Point(2, 5)),
        ("the door", Point(2, 3)),
        (" the door ", Point(2, 3)),
        ("twice", Point(1, 4)),  # the later one
        ("at 1:2", Point(1, 3)),
        (":4", Point(1, 2)),  # a name, since no branch is said
        ("000000000000000001", Point(1, 1)),
        ("0000000000000000001", Point(1, 4)),  # a name, since no number is that long
    ],
)
def test_a_text_names_a_moment(text, point):
    tree = grown()
    del tree.branches[5]
    for name, where in (
        ("twice", Point(1, 1)), ("the door", Point(2, 3)), ("twice", Point(1, 4)), ("at 1:2", Point(1, 3)),
        (":4", Point(1, 2)), ("0000000000000000001", Point(1, 4)),
    ):  # fmt: skip
        tree.bookmarks.append(Bookmark(len(tree.bookmarks) + 1, name, where, 0.0))
    assert tree.parse(text) == point


def test_a_bookmark_stands_for_the_moment_wherever_its_tick_was_played():
    tree = grown()
    tree.bookmarks.append(Bookmark(1, "early", Point(3, 1), 0.0))
    assert tree.parse("early") == Point(1, 1)


def refused(sentence: str):
    """The whole sentence: it is all that somebody gets who named a moment that there is not."""
    return pytest.raises(RecordingError, check=lambda error: str(error) == sentence)


def test_what_there_is_not_is_refused_and_what_there_is_is_named():
    tree = grown()
    with refused("there is no branch 4; there are 1, 2, 3, 5"):
        tree.branch(4)
    for point in (Point(2, 6), Point(2, -1)):
        with refused(f"branch 2 has ticks 0 to 5, so none numbered {point.tick}"):
            tree.check(point)
    for first, last in ((-1, 2), (3, 2), (2, 6)):
        with refused(f"branch 2 has ticks 0 to 5, so none from {first} to {last}"):
            tree.check_range(2, first, last)
    for first, last in ((0, 5), (3, 3), (0, 0), (5, 5)):
        tree.check_range(2, first, last)
    said = "`nowhere` is no moment: it is a tick (140), one of a branch (2:140), or a bookmark "
    with refused(f"{said}(none)"):
        tree.parse("nowhere")
    for number, name in enumerate(("b", "a", "b"), 1):
        tree.bookmarks.append(Bookmark(number, name, Point(1, 1), 0.0))
    with refused(f"{said}(b, a)"):
        tree.parse("nowhere")


def test_of_many_branches_the_first_twenty_are_named():
    tree = Tree()
    for number in range(25, 0, -1):
        tree.branches[number] = Branch(number, None, 1, 7, 1)
    with refused(f"there is no branch 26; there are {', '.join(map(str, range(1, 21)))}"):
        tree.branch(26)


def test_where_nothing_was_played_there_is_no_moment():
    with refused("nothing was played yet, so there is no branch"):
        _ = Tree().newest
    with refused("there is no branch 1; there are none"):
        Tree().branch(1)
    with pytest.raises(RecordingError):
        Tree().parse("")
