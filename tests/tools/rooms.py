"""The rooms as the code has them: `python -m tests.tools.rooms` prints what ARCHITECTURE.md shows.

Every import of the rooms' files is read by `ast`, nothing is run. All of them count: those inside functions,
which only come late, and those under TYPE_CHECKING, since who names another's types knows it as well. Not
counted: that Python runs a folder's `__init__.py` before any module in it, and names in strings.
"""

import ast
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "playhead"
"""The rooms may lie in a package of this name, which is left out of the names here."""
ROOMS = ("main", "render", "engine", "controls", "scenes", "world")
"""From above to below: a room imports those after it alone."""
OUTSIDE = ("tests", "examples")
"""What none of the rooms may import."""
ACROSS = {("engine.agents.env", "render.window.viewer")}
"""Imports that ARCHITECTURE.md lets look across, only inside a function."""


@dataclass(frozen=True, order=True)
class Import:
    """That `module` imports `imported`, another one of the rooms, in a line; `late`: inside a function."""

    module: str
    imported: str
    line: int
    late: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.imported} (line {self.line})"


@cache
def modules() -> dict[str, Path]:
    """The file of every module of the rooms; a folder stands for its `__init__.py`."""
    base = ROOT / PACKAGE if (ROOT / PACKAGE).is_dir() else ROOT
    folders = sorted(file for room in ROOMS for file in (base / room).rglob("*.py"))
    files = {
        ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): file
        for file in folders
    }
    return {"main": next(file for file in (base / "main.py", ROOT / "main.py") if file.exists())} | files


@cache
def imports() -> tuple[Import, ...]:
    """All imports between modules of the rooms, and of what lies outside."""
    known = modules()
    return tuple(
        sorted(
            found
            for module, file in known.items()
            for found in read_imports(module, file.read_text("utf-8"), known)
            if found.imported != module
        )
    )


def read_imports(module: str, source: str, known: Iterable[str]) -> Iterator[Import]:
    """The imports that a module's source names, of those known and of what lies outside."""
    for node, late in _walk(ast.parse(source), late=False):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"{module}, line {node.lineno}: rooms import each other by their whole names")
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            imported = _module(name.removeprefix(f"{PACKAGE}."), known)
            if imported is not None:
                yield Import(module, imported, node.lineno, late)


def _walk(node: ast.AST, late: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, late
    late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, late)


def _module(name: str, known: Iterable[str]) -> str | None:
    """The module that is imported for a name: itself, or the one it is a name of."""
    if name.split(".")[0] in OUTSIDE:
        return name
    return next((found for found in (name, name.rpartition(".")[0]) if found in known), None)


def room(module: str) -> str:
    """The room of a module; the rooms' commands belong to the command line."""
    first, last = module.split(".")[0], module.split(".")[-1]
    return "main" if last == "commands" or last.endswith("_commands") else first


def looks_across(one: Import) -> bool:
    """Whether an import is one of those few that may look across, and comes late as it has to."""
    return one.late and (one.module, one.imported) in ACROSS


def circles(found: Iterable[Import]) -> list[list[str]]:
    """The shortest circle through every module that is part of one, each circle once."""
    arrows: dict[str, set[str]] = {}
    for one in found:
        arrows.setdefault(one.module, set()).add(one.imported)
    circles: dict[frozenset[str], list[str]] = {}
    for module in sorted(arrows):
        if (circle := _way_back(module, arrows)) is not None:
            circles.setdefault(frozenset(circle), circle)
    return list(circles.values())


def _way_back(module: str, arrows: dict[str, set[str]]) -> list[str] | None:
    came_from: dict[str, str] = {}
    waiting = deque([module])
    while waiting:
        here = waiting.popleft()
        for there in sorted(arrows.get(here, ())):
            if there == module:
                way = [here]
                while way[-1] != module:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if there not in came_from:
                came_from[there] = here
                waiting.append(there)
    return None


def picture() -> str:
    """The rooms, those above that import those below, each with what it is, its arrows and its folders."""
    arrows: dict[str, set[str]] = {name: set() for name in ROOMS}
    across: dict[str, list[str]] = {name: [] for name in ROOMS}
    for one in imports():
        here, there = room(one.module), room(one.imported)
        if looks_across(one):
            across[here].append(f"{one.module} may look across to {one.imported}")
        elif here != there:
            arrows[here].add(there)
    known, lines = modules(), []
    for name in ROOMS:
        lines.append(_line("", name, known[name]))
        there = ", ".join(other for other in ROOMS if other in arrows[name])
        lines += [f"{'':<14}-> {there}"] if there else []
        lines += [f"{'':<14}({sentence})" for sentence in across[name]]
        inside = [
            module
            for module, file in known.items()
            if file.name == "__init__.py" and module.startswith(f"{name}.")
        ]
        lines += [
            _line("  " * module.count("."), module.rpartition(".")[2], known[module]) for module in inside
        ]
    return "\n".join(lines)


def _line(indent: str, name: str, file: Path) -> str:
    said = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n")[0]
    ending = "/" if file.name == "__init__.py" else ".py"
    return f"{indent + name + ending:<14}{said.split('. ')[0].rstrip('.')}"


if __name__ == "__main__":
    print(picture())
