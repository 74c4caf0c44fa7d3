"""How a timeline is laid out: the way to a moment, and lanes in which no branch hides another."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.recording.tree import Branch, PlayedTick, Point, Tree
from playhead.render.window.strip import LANES, assign_lanes, way_to
from playhead.world.action import Action

TICK = PlayedTick(Action(), 1, "script", 0.0, 0.0)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of branches that begin anywhere before."""
    tree = Tree()
    for number in range(1, draw(st.integers(1, 12)) + 1):
        parent = None
        if number > 1 and draw(st.booleans()):
            whence = draw(st.integers(1, number - 1))
            parent = tree.check(Point(whence, draw(st.integers(0, tree.branch(whence).last))))
        tree.branches[number] = Branch(number, parent, 1, 0, 1, ticks=[TICK] * draw(st.integers(0, 9)))
    return tree


@given(trees(), st.data())
def test_the_way_to_a_moment_has_every_tick_of_it_once(tree: Tree, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(sorted(tree.branches)))
    point = tree.check(Point(number, data.draw(st.integers(0, tree.branch(number).last))))
    way = way_to(list(tree.branches.values()), point)
    ticks = [Point(b, t) for b, last in way.items() for t in range(tree.branch(b).first + 1, last + 1)]
    path = [tree.check(Point(point.branch, tick)) for tick in range(1, point.tick + 1)]
    assert sorted(ticks, key=lambda p: p.tick) == path


@given(trees())
def test_branches_of_one_lane_do_not_overlap_while_there_are_lanes(tree: Tree) -> None:
    branches = list(tree.branches.values())
    lanes = assign_lanes(branches)
    assert lanes.keys() == tree.branches.keys() and lanes[1] == 0
    for lane in range(LANES - 1):
        spans = sorted((b.first, max(b.last, b.first + 1)) for b in branches if lanes[b.id] == lane)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
