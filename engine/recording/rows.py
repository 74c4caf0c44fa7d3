"""The rows of a recording, and the seals that chain them: the one place that says what follows what.

A scene's seal goes on from that of the facts, a root's from its scene's, another branch's from the tick or
the root that it begins after, a tick's from the tick before it or the branch that it begins.
"""

import io
import secrets
import sqlite3
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from playhead.engine.recording.schema import VERSION, Cell, end_seal, seal
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Sealed
from playhead.scenes.scene import Scene, context_arrays
from playhead.world.action import ActionSpace


def facts_of(
    title: str, world: str, fingerprint: dict[str, str], rate: float, space: ActionSpace, time: float
) -> dict[str, bytes]:
    """What a new recording says of itself and its world, by name."""
    return {
        "id": secrets.token_hex(8).encode(),
        "title": title.encode(),
        "world": world.encode(),
        "fingerprint": msgspec.json.encode(fingerprint),
        "rate": repr(rate).encode(),
        "space": msgspec.json.encode(space),
        "time": repr(time).encode(),
    }


def scene_row(number: int, scene: Scene) -> tuple[Cell, ...]:
    """A scene's row but for its seal."""
    data = io.BytesIO()
    np.savez_compressed(data, **context_arrays(scene.context))  # type: ignore[arg-type]  # none is named `allow_pickle`
    said = {
        "name": scene.name,
        "title": scene.title,
        "description": scene.description,
        "world": scene.world,
        "seed": scene.seed,
        "place": scene.place,
        "prompts": scene.prompts,
    }
    return number, msgspec.json.encode(said).decode(), data.getvalue()


def branch_row(branch: Branch) -> tuple[Cell, ...]:
    """A branch's row but for its seal."""
    parent = branch.parent.branch if branch.parent is not None else None
    head = (branch.id, parent, branch.first, branch.scene, str(branch.seed))
    return (*head, branch.play, branch.start, branch.time)


def tick_row(point: Point, tick: PlayedTick) -> tuple[Cell, ...]:
    """A tick's row but for its seal."""
    head = (point.branch, point.tick, tick.action.to_json(), tick.steps)
    return (*head, tick.source, tick.time, tick.took, tick.hash)


class Seals:
    """The seals of a recording. `facts`: of what it says of itself. `scenes`: of each scene, by number."""

    def __init__(self, facts: bytes, scenes: Mapping[int, bytes] | None = None) -> None:
        self._facts, self.scenes = facts, dict(scenes or {})

    def of_scene(self, row: Sequence[Cell]) -> bytes:
        return seal(self._facts, row)

    def of_branch(self, row: Sequence[Cell], scene: int, before: Sealed | None) -> bytes:
        """Of a root, where there is nothing `before` it, or of a branch from a tick or a root."""
        return seal(self.scenes[scene] if before is None else before.seal, row)

    def of_tick(self, row: Sequence[Cell], before: Sealed) -> bytes:
        return seal(before.seal, row)


class Rows:
    """Writes rows to a database, each with its seal, which branches and ticks are told too."""

    def __init__(self, base: sqlite3.Connection, seals: Seals) -> None:
        self._base, self._seals = base, seals

    def add_play(self, number: int, time: float, environment: dict[str, str]) -> None:
        self._put("plays", (number, time, msgspec.json.encode(environment).decode()))

    def add_scene(self, number: int, scene: Scene) -> None:
        row = scene_row(number, scene)
        self._seals.scenes[number] = self._seals.of_scene(row)
        self._put("scenes", (*row, self._seals.scenes[number]))

    def add_branch(self, branch: Branch, before: Sealed | None) -> None:
        """Adds a root, or a branch after a tick or a root; its `start` has to be known."""
        row = branch_row(branch)
        branch.seal = self._seals.of_branch(row, branch.scene, before)
        self._put("branches", (*row, branch.seal))

    def add_tick(self, point: Point, tick: PlayedTick, before: Sealed) -> None:
        """Adds a tick, whose `hash` has to be known."""
        row = tick_row(point, tick)
        tick.seal = self._seals.of_tick(row, before)
        self._put("ticks", (*row, tick.seal))

    def add_bookmark(self, mark: Bookmark) -> None:
        self._put("bookmarks", (mark.id, *mark.point, mark.name, mark.time))

    def add_thumbnail(self, point: Point, jpeg: bytes) -> None:
        """Adds the picture of a point; one that is there already stays."""
        self._put("thumbnails", (*point, jpeg), "OR IGNORE ")

    def open_end(self) -> None:
        """Takes the seal off the end of a recording that is gone on with."""
        self._base.execute("DELETE FROM recording WHERE key = 'end'")

    def seal_end(self) -> None:
        """Seals the end of a recording that is whole."""
        self._base.execute("INSERT OR REPLACE INTO recording VALUES ('end', ?)", (end_seal(self._base),))
        self._base.execute(f"PRAGMA user_version = {VERSION}")

    def _put(self, table: str, row: Sequence[Cell], otherwise: str = "") -> None:
        self._base.execute(f"INSERT {otherwise}INTO {table} VALUES ({', '.join('?' * len(row))})", row)
