"""Reads recordings. Every value is checked before it is used; the file itself is never changed."""

import contextlib
import html
import io
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playhead.engine.notebook_film import strip_film
from playhead.engine.recording.file import DAMAGE, open_base
from playhead.engine.recording.rows import Seals
from playhead.engine.recording.schema import (
    APPLICATION_ID,
    HASH_BYTES,
    LATEST,
    READ,
    SEAL_BYTES,
    TABLES,
    VERSION,
    RecordingError,
    end_seal,
    facts_seal,
)
from playhead.engine.recording.thumbnails import decode_jpeg
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Tree
from playhead.engine.work import Work, at_once, pieces
from playhead.scenes.scene import MAX_SEED, Scene, SceneError, parse_context, unpacked_bytes
from playhead.world.action import Action, ActionSpace
from playhead.world.context import Context
from playhead.world.size import MAX_STEPS
from playhead.world.terminal import printable

LARGEST_SCENES = 2**28
"""Bytes that the contexts in a file may unpack to, all together."""
THUMBNAILS_A_SECOND = 4.0
"""How fast a film of them is shown."""
MOST_TICKS = 50_000_000
"""Ticks of a recording, at the most: a month of play."""


@dataclass
class Recording:
    """A recording's content: who played what (`tree`), where, and what it began from.

    `fingerprint`: of the world. `environments`: of each play, by its number. `rate`: ticks a second.
    `space`: the world's actions. `sealed`: it was closed, so that nothing can have been lost at its end; one
    that was killed, or is being recorded, is not. `problems`: what could not be read, if that was allowed.
    `pictures`: its thumbnails, where the file cannot be asked for them again.
    """

    path: Path
    id: str = ""
    title: str = ""
    world: str = ""
    time: float = 0.0
    rate: float = 1.0
    fingerprint: dict[str, str] = field(default_factory=dict)
    space: ActionSpace = field(default_factory=lambda: ActionSpace(()))
    plays: dict[int, tuple[float, dict[str, str]]] = field(default_factory=dict)
    scenes: dict[int, Scene] = field(default_factory=dict)
    scene_seals: dict[int, bytes] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    sealed: bool = False
    problems: list[str] = field(default_factory=list)
    pictures: list[tuple[Point, np.ndarray]] | None = None

    @classmethod
    def read(cls, path: Path, whole: bool = True) -> "Recording":
        """Reads a file. Raises RecordingError naming it and what is wrong with it.

        Where it need not be `whole`, what is damaged is left out and named in `problems`.
        """
        return at_once(cls.reading(path, whole))

    @classmethod
    def reading(cls, path: Path, whole: bool = True) -> "Work[Recording]":
        """`read`, a piece at a time."""
        recording = cls(path)
        try:
            with open_base(path) as base:
                yield from _Reader(recording, base, whole).read()
        except RecordingError:
            raise
        except DAMAGE as error:
            said = printable(str(error)) or type(error).__name__
            raise RecordingError(f"{path} is damaged or no recording ({said})") from None
        return recording

    def scene(self, branch: int) -> Scene:
        """The scene that a branch's root begins from."""
        return self.scenes[self.tree.root(branch).scene]

    def context(self, branch: int) -> Context:
        return self.scene(branch).context

    def environment(self, branch: int) -> dict[str, str]:
        """Where a branch was played."""
        return self.plays[self.tree.branch(branch).play][1]

    def __repr__(self) -> str:
        return f"Recording({self.path}: {self.tree.count} ticks of the world {self.world})"

    def _repr_html_(self) -> str:
        """What it holds, and its thumbnails on the way to the newest branch's end as a film."""
        tree = self.tree
        marks = ", ".join(mark.name for mark in tree.bookmarks) or "none"
        caption = (
            f"{self.title or self.path.stem}: {tree.count} ticks of the world {self.world}, "
            f"branches: {len(tree.branches)}, bookmarks: {marks}"
        )
        line = {branch.id for branch in tree.lineage(tree.newest)} if tree.branches else set()
        pictures = [p for point, p in sorted(self.thumbnails(), key=lambda t: t[0]) if point.branch in line]
        if not pictures:
            return f"<p>{html.escape(caption)}</p>"
        return strip_film(pictures, THUMBNAILS_A_SECOND, f"{caption}; thumbnails")._repr_html_()

    def thumbnails(self) -> list[tuple[Point, np.ndarray]]:
        """Small pictures, uint8 `(h, w, 3)`, of moments; what cannot be read is left out."""
        return at_once(self.picturing())

    def picturing(self) -> Work[list[tuple[Point, np.ndarray]]]:
        """`thumbnails`, a piece at a time."""
        if self.pictures is not None:
            return self.pictures
        import av

        found: list[tuple[Point, np.ndarray]] = []
        with contextlib.suppress(*DAMAGE), open_base(self.path) as base:
            for branch, tick, data in base.execute("SELECT branch, tick, jpeg FROM thumbnails"):
                yield
                with contextlib.suppress(av.FFmpegError, StopIteration, *DAMAGE):
                    found.append((self.tree.check(Point(branch, tick)), decode_jpeg(data)))
        return found


class _Reader:
    """Fills a recording from a database."""

    def __init__(self, recording: Recording, base: sqlite3.Connection, whole: bool) -> None:
        self._to, self._base, self._whole = recording, base, whole
        self._seals = Seals(b"")
        self._room = LARGEST_SCENES
        self._end: bytes | None = None
        self._actions: dict[str, Action] = {}  # of all ticks that held the same, one

    def read(self) -> Work[None]:
        self._check_kind()
        yield from self._read_facts()
        yield from self._each("SELECT id, time, environment FROM plays ORDER BY id", self._read_play)
        yield from self._each("SELECT id, fields, context, seal FROM scenes ORDER BY id", self._read_scene)
        yield from self._each(
            "SELECT id, parent, first, scene, seed, play, start, time, seal FROM branches ORDER BY id",
            self._read_branch,
        )
        marks = "SELECT id, branch, tick, name, time FROM bookmarks ORDER BY id"
        yield from self._each(marks, self._read_bookmark)
        self._check_end()

    def _check_end(self) -> None:
        """Looks for rows that are missing at the end, where that was sealed, and for bytes that are."""
        path = self._to.path
        pages, page = (self._base.execute(f"PRAGMA {n}").fetchone()[0] for n in ("page_count", "page_size"))
        log = path.with_name(path.name + "-wal")
        if path.stat().st_size != pages * page and not log.is_file():
            self._complain("its last bytes are missing")
        try:
            self._to.sealed = self._end is not None
            if self._end is not None and self._end != end_seal(self._base):
                self._complain("its last rows are missing or were changed")
        except sqlite3.Error as error:
            self._complain(f"its end cannot be read ({error})")

    def _check_kind(self) -> None:
        path = self._to.path
        kind = self._base.execute("PRAGMA application_id").fetchone()[0]
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        made = dict(self._base.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        foreign = any(made.get(name) != sql for name, sql in TABLES.items())
        if kind != APPLICATION_ID and (self._whole or foreign):
            raise RecordingError(f"{path} is a database of another program, no recording")
        if version > VERSION and (self._whole or foreign):
            raise RecordingError(
                f"{path} has schema {version}, and this Playhead reads {VERSION}; update Playhead"
            )
        if version not in READ and (self._whole or foreign):
            raise RecordingError(f"{path} has schema {version}, which only an older Playhead reads")
        if foreign:
            raise RecordingError(f"{path} has other tables than a recording of schema {VERSION}")

    def _each(self, query: str, read: Any, *values: int) -> Work[None]:  # noqa: ANN401 - a method below
        """Hands every row to `read`, which may return further work; where the file need not be whole, up to
        the first that is damaged.
        """
        try:
            for row, ends in pieces(self._base.execute(query, values)):
                if ends:
                    yield
                try:
                    more = read(*row)
                    if more is not None:
                        yield from more
                except _DamagedRow as error:
                    self._complain(str(error))
                    if error.ends:
                        break
                except DAMAGE as error:
                    if isinstance(error, RecordingError) and self._whole:
                        raise
                    what = f"a row of {query.split(' FROM ')[1].split()[0]} is damaged"
                    self._complain(f"{what} ({printable(str(error)) or type(error).__name__})")
        except sqlite3.Error as error:
            self._complain(f"{query.split(' FROM ')[1].split()[0]} end early ({error})")

    def _complain(self, problem: str) -> None:
        if self._whole:
            raise RecordingError(f"{self._to.path}: {problem}; `recordings repair` saves what is whole")
        self._to.problems.append(problem)

    def _read_facts(self) -> Work[None]:
        facts: dict[str, bytes] = {}
        yield from self._each(
            "SELECT key, value FROM recording",
            lambda key, value: facts.update({key: memoryview(value).tobytes()}),
        )
        sealed, self._end = facts.get("seal", b""), facts.get("end")
        self._seals = Seals(sealed)
        if facts_seal(facts) != sealed:
            self._complain("what it says of itself was changed")
        to, words = self._to, dict[str, str]
        read: dict[str, Callable[[bytes], Any]] = {
            "id": lambda said: printable(said.decode()),
            "world": lambda said: printable(said.decode()),
            "title": lambda said: printable(said.decode()),
            "time": lambda said: _time(float(said)),
            "rate": float,
            "fingerprint": lambda said: msgspec.json.decode(said, type=words),
            "space": lambda said: msgspec.json.decode(said, type=ActionSpace),
        }
        for key, parse in read.items():
            try:
                setattr(to, key, parse(facts[key]))
            except KeyError:
                self._complain(f"its {key} is missing")
            except DAMAGE as error:
                self._complain(f"its {key} is damaged ({printable(str(error))})")
        if not (to.id.isalnum() and 0 < to.rate <= 1000):
            self._complain("its id or its rate is none")
            to.id, to.rate = "0", to.rate if 0 < to.rate <= 1000 else 1.0

    def _read_play(self, number: int, when: float, said: str) -> None:
        self._to.plays[number] = _time(when), msgspec.json.decode(said, type=dict[str, str])

    def _read_scene(self, number: int, said: str, data: bytes, sealed: bytes) -> None:
        if self._seals.of_scene((number, said, data)) != sealed:
            self._complain(f"scene {number} was changed")
        fields = msgspec.json.decode(said, type=dict[str, str | int | list[str]])
        try:
            file = io.BytesIO(data)
            self._room -= unpacked_bytes(file)
            if self._room < 0:
                raise _DamagedRow(f"its scenes unpack to more than {LARGEST_SCENES // 2**20} MB", ends=True)
            context = parse_context(file, f"{self._to.path}, scene {number},")
        except SceneError as error:
            raise _DamagedRow(str(error)) from None
        text = {
            key: printable(str(fields[key])) for key in ("name", "title", "description", "world", "place")
        }
        context = replace(context, place=text["place"])
        prompts = fields["prompts"]
        if not isinstance(prompts, list):
            raise _DamagedRow(f"scene {number} has prompts that are none")
        self._to.scenes[number] = Scene(
            text["name"], text["title"], text["description"], text["world"], _seed(fields["seed"]),
            context, tuple(map(printable, prompts)),
        )  # fmt: skip
        self._seals.scenes[number] = self._to.scene_seals[number] = sealed

    def _read_branch(
        self, number: int, parent: int | None, first: int, scene: int, seed: str, play: int, start: bytes,
        when: float, sealed: bytes,
    ) -> Work[None]:  # fmt: skip
        tree, to = self._to.tree, self._to
        point = None
        if parent is not None:
            if parent not in tree.branches or not 0 <= first <= tree.branches[parent].last:
                raise _DamagedRow(
                    f"branch {number} begins from tick {first} of branch {parent}, which is not there"
                )
            point = Point(parent, first)
        branch = Branch(number, point, scene, _seed(int(seed)), play, start, _time(when), sealed)
        if scene not in to.scenes or play not in to.plays or len(start) != HASH_BYTES:
            raise _DamagedRow(f"branch {number} lacks its scene, its play or its first hash")
        before = tree.sealed(point) if point is not None else None
        row = (number, parent, first, scene, seed, play, start, when)
        if self._seals.of_branch(row, scene, before) != sealed:
            self._complain(f"branch {number} was changed")
        tree.branches[number] = branch
        return self._each(
            "SELECT branch, tick, action, steps, source, time, took, hash, seal FROM ticks "
            "WHERE branch = ? ORDER BY tick",
            self._read_tick,
            number,
        )

    def _read_tick(
        self, number: int, tick: int, said: str, steps: int, source: str, when: float, took: float,
        digest: bytes, sealed: bytes,
    ) -> None:  # fmt: skip
        branch = self._to.tree.branches[number]
        expected = branch.last + 1
        if tick != expected:
            raise _DamagedRow(f"branch {number} lacks tick {expected}", ends=True)
        row = (number, tick, said, steps, source, when, took, digest)
        whole = self._seals.of_tick(row, branch.tip) == sealed
        if not whole or len(digest) != HASH_BYTES or len(sealed) != SEAL_BYTES:
            raise _DamagedRow(f"tick {tick} of branch {number} was changed", ends=True)
        if not 1 <= steps <= MAX_STEPS or tick > MOST_TICKS:
            raise _DamagedRow(f"tick {tick} of branch {number} has {steps} steps, which cannot be", ends=True)
        try:
            action = self._actions.get(said)
            if action is None:
                action = self._actions[said] = Action.from_json(said)
        except DAMAGE:
            raise _DamagedRow(f"tick {tick} of branch {number} has no action", ends=True) from None
        branch.ticks.append(
            PlayedTick(action, steps, printable(source, 32), _time(when), _time(took), digest, sealed)
        )

    def _read_bookmark(self, number: int, branch: int, tick: int, name: str, when: float) -> None:
        try:
            point = self._to.tree.check(Point(branch, tick))
        except RecordingError as error:
            raise _DamagedRow(f"bookmark {number} is nowhere: {error}") from None
        self._to.tree.bookmarks.append(Bookmark(number, printable(name), point, _time(when)))


class _DamagedRow(RecordingError):
    """A row that cannot be used; with `ends`, neither can those that follow it."""

    def __init__(self, sentence: str, ends: bool = False) -> None:
        super().__init__(printable(sentence, 400))  # it may repeat what the file holds
        self.ends = ends


def _time(value: Any) -> float:  # noqa: ANN401 - whatever the file holds
    """Seconds, as a calendar has them."""
    if not isinstance(value, int | float) or not 0 <= value < LATEST:
        raise _DamagedRow(f"the time {printable(str(value), 40)} is none")
    return float(value)


def _seed(value: Any) -> int:  # noqa: ANN401 - whatever the file holds
    if not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise _DamagedRow(f"the seed {printable(str(value), 40)} is none")
    return value
