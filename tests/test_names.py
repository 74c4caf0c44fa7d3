"""One word for one thing: no two classes and no two modules of the rooms have the same name."""

import ast
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    file
    for room in ("controls", "engine", "render", "scenes", "world")
    for file in sorted((ROOT / room).rglob("*.py"))
]
CONVENTION = {"commands", "__init__"}
"""What several folders have on purpose: the commands of each, for the command line."""


def twice(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def test_a_class_is_the_only_one_of_its_name() -> None:
    nodes = [node for file in FILES for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    assert twice(node.name for node in nodes if isinstance(node, ast.ClassDef)) == []


def test_a_module_is_the_only_one_of_its_name() -> None:
    assert FILES
    assert twice(file.stem for file in FILES if file.stem not in CONVENTION) == []
