"""Imports go one way between the rooms and never in a circle, and ARCHITECTURE.md's picture is the code's.

Which imports count is said in `tests.tools.rooms`: all of them, late ones and those for types too.
"""

import pytest

from tests.tools import rooms

ARROWS = {
    "main": {"render", "engine", "controls", "scenes", "world"},
    "render": {"engine", "controls", "scenes", "world"},
    "engine": {"scenes", "world"},
    "controls": {"world"},
    "scenes": {"world"},
    "world": set(),
}
"""Which rooms a room may import: the arrows of ARCHITECTURE.md. Commands belong to `main`."""
HAVE = [one for one in rooms.imports() if one.imported.split(".")[0] not in rooms.OUTSIDE]


def test_no_import_goes_against_the_arrows() -> None:
    wrong = [
        str(one)
        for one in rooms.imports()
        if (here := rooms.room(one.module)) != (there := rooms.room(one.imported))
        and there not in ARROWS[here]
        and not rooms.looks_across(one)
    ]
    assert not wrong, "against the arrows of ARCHITECTURE.md: " + "; ".join(wrong)


def test_no_import_closes_a_circle() -> None:
    found = rooms.circles(HAVE)
    assert not found, "import circles: " + "; ".join(" -> ".join([*way, way[0]]) for way in found)


def test_what_may_look_across_still_does() -> None:
    assert {(one.module, one.imported) for one in HAVE if rooms.looks_across(one)} == rooms.ACROSS


def test_worlds_know_no_window() -> None:
    """`world/` imports no pygame, however late."""
    said = [
        module
        for module, file in rooms.modules().items()
        if module.split(".")[0] == "world"
        and [*rooms.read_imports(module, file.read_text("utf-8"), {"pygame"})]
    ]
    assert not said


@pytest.mark.parametrize("prefix", ["", "playhead."])
def test_every_spelling_of_an_import_is_read(prefix: str) -> None:
    source = f"""
import {prefix}world.errors
from {prefix}world import noise as n
from {prefix}world.noise import NOISE, draw
import numpy
if TYPE_CHECKING:
    from {prefix}engine.session import Session
def late():
    import tests.conftest
    lambda: __import__("never")
"""
    known = {"world", "world.errors", "world.noise", "engine.session", "main"}
    found = [(one.imported, one.late) for one in rooms.read_imports("main", source, known)]
    assert found == [
        ("world.errors", False),
        ("world.noise", False),
        ("world.noise", False),
        ("world.noise", False),
        ("engine.session", False),
        ("tests.conftest", True),
    ]


def test_commands_belong_to_the_command_line() -> None:
    names = ("main", "engine.commands", "render.export.commands", "engine.loop")
    assert [rooms.room(name) for name in names] == ["main", "main", "main", "engine"]


def test_circles_are_found_and_named() -> None:
    arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("e", "f")]
    found = rooms.circles(rooms.Import(here, there, 1, False) for here, there in arrows)
    assert found == [["a", "b", "c"], ["d", "e"]]


def test_architecture_shows_the_rooms_as_they_are() -> None:
    """Else put in what `python -m tests.tools.rooms` prints."""
    page = (rooms.ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert f"```\n{rooms.picture()}\n```" in page
