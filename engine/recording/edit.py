"""Makes new recordings of others: repaired, cut, one branch alone, or several files in one.

The files that are read are never changed. Frame hashes are taken over, seals are made anew.
"""

import contextlib
import itertools
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from playhead.engine.fingerprint import differences
from playhead.engine.recording.file import create, put_in_place
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.rows import Rows, Seals, facts_of, scene_row
from playhead.engine.recording.schema import RecordingError, facts_seal
from playhead.engine.recording.thumbnails import Thumbnails
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Sealed, Tree
from playhead.engine.work import Work, at_once, pieces
from playhead.scenes.scene import Scene

PAGE = 4096
"""Bytes of a page of SQLite, as recordings have them."""


@dataclass
class Draft:
    """A recording that is to be written: where each kept tick of a source went, and the pictures of them."""

    source: Recording
    plays: dict[int, tuple[float, dict[str, str]]] = field(default_factory=dict)
    scenes: dict[int, Scene] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    thumbnails: dict[Point, np.ndarray] = field(default_factory=dict)


def repair(path: Path, out: Path) -> Recording:
    """Writes what is whole of a damaged recording to a new file. Returns what was read, with its `problems`.

    Raises RecordingError where nothing can be read at all.
    """
    return at_once(repairing(path, out))


def repairing(path: Path, out: Path) -> Work[Recording]:
    """`repair`, a piece at a time; given up, it leaves nothing or the whole file."""
    try:
        found = yield from Recording.reading(path, whole=False)
    except RecordingError:
        found = yield from _reading_beheaded(path)
    if not found.tree.branches:
        why = "; ".join(found.problems) or "nothing was played in it"
        raise RecordingError(f"{path} holds nothing that could be saved: {why}")
    draft = yield from drafting(found, lambda branch: branch.last)
    yield from writing(out, draft)
    return found


def _reading_beheaded(path: Path) -> Work[Recording]:
    """Reads a file whose first bytes are damaged, in a copy that has those of any recording."""
    data = path.read_bytes()
    head = struct.pack(">16sH6B", b"SQLite format 3\0", PAGE, 1, 1, 0, 64, 32, 32)
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        headed = Path(folder) / path.name
        headed.write_bytes(head + data[len(head) : 28] + (len(data) // PAGE).to_bytes(4, "big") + data[32:])
        try:
            found = yield from Recording.reading(headed, whole=False)
        except RecordingError as error:  # names the copy
            raise RecordingError(str(error).replace(str(headed), str(path), 1)) from None
        found.problems.append("its first bytes are damaged")
        found.pictures = yield from found.picturing()
    found.path = path
    return found


def trim(path: Path, point: str, out: Path) -> Recording:
    """Writes a recording without what comes after a point on its branch, and the branches from there."""
    found = Recording.read(path)
    last = found.tree.parse(point)
    write(out, draft_of(found, lambda branch: last.tick if branch.id == last.branch else branch.last))
    return Recording.read(out)


def split(path: Path, branch: int, out: Path, last: int | None = None) -> Recording:
    """Writes one branch, from its start on and up to tick `last`, to a file of its own."""
    return at_once(splitting(path, branch, out, last))


def splitting(path: Path, branch: int, out: Path, last: int | None = None) -> Work[Recording]:
    """`split`, a piece at a time; given up, it leaves nothing or the whole file."""
    found = yield from Recording.reading(path)
    line = found.tree.lineage(branch)
    ends = {here.id: after.first for here, after in itertools.pairwise(line)}
    ends[branch] = found.tree.branch(branch).last
    if last is not None:
        ends = {number: min(end, last) for number, end in ends.items()}
    draft = yield from drafting(found, lambda branch: ends.get(branch.id, -1))
    yield from writing(out, draft)
    return (yield from Recording.reading(out))


def merge(paths: Sequence[Path], out: Path) -> Recording:
    """Writes several recordings of one world to one file; what they have in common is there once."""
    found = [Recording.read(path) for path in paths]
    draft = draft_of(found[0], lambda branch: branch.last)
    for other in found[1:]:
        unlike = differences(found[0].fingerprint, other.fingerprint)
        if unlike:
            raise RecordingError(f"{other.path} and {found[0].path} are of two worlds: {'; '.join(unlike)}")
        _add(draft, other)
    write(out, draft)
    return Recording.read(out)


def draft_of(source: Recording, last: Callable[[Branch], int]) -> Draft:
    """The branches of a recording, each up to tick `last`; those whose beginning is left out are too."""
    return at_once(drafting(source, last))


def drafting(source: Recording, last: Callable[[Branch], int]) -> Work[Draft]:
    """`draft_of`, a piece at a time."""
    draft = Draft(source, dict(source.plays), {})
    for branch in source.tree.branches.values():
        end, parent = last(branch), branch.parent
        if end < branch.first or (end == branch.first and parent is not None):
            continue
        if parent is not None:
            above = draft.tree.branches.get(parent.branch)
            if above is None or above.last < parent.tick:
                continue
        draft.scenes[branch.scene] = source.scenes[branch.scene]
        ticks: list[PlayedTick] = []
        for played, ends in pieces(branch.ticks[: end - branch.first]):
            ticks.append(copy(played))
            if ends:
                yield
        draft.tree.branches[branch.id] = replace(branch, ticks=ticks)
    for mark in source.tree.bookmarks:
        if _there(draft.tree, mark.point):
            draft.tree.bookmarks.append(mark)
    pictures = yield from source.picturing()
    draft.thumbnails = {p: picture for p, picture in pictures if _there(draft.tree, p)}
    return draft


def _add(draft: Draft, other: Recording) -> None:
    """Adds a recording to a draft under numbers of its own."""
    plays = {n: max(draft.plays, default=0) + i for i, n in enumerate(other.plays, 1)}
    scenes: dict[int, int] = {}
    for number, scene in other.scenes.items():
        same = [n for n, known in draft.scenes.items() if scene_row(0, known) == scene_row(0, scene)]
        scenes[number] = same[0] if same else max(draft.scenes, default=0) + 1
        draft.scenes[scenes[number]] = draft.scenes.get(scenes[number], scene)
    points: dict[int, int] = {}
    tree = draft.tree
    for branch in other.tree.branches.values():
        parent = branch.parent and Point(points[branch.parent.branch], branch.parent.tick)
        known = next(
            (
                b
                for b in tree.branches.values()
                if (b.parent, b.scene, b.seed) == (parent, scenes[branch.scene], branch.seed)
                and b.start == branch.start
                and draft.plays[b.play] == other.plays[branch.play]
                and all(map(_same, b.ticks, branch.ticks))
            ),
            None,
        )
        if known is not None:
            known.ticks += [copy(played) for played in branch.ticks[len(known.ticks) :]]
            points[branch.id] = known.id
            continue
        draft.plays[plays[branch.play]] = other.plays[branch.play]
        number = max(tree.branches, default=0) + 1
        points[branch.id] = number
        ticks = [copy(played) for played in branch.ticks]
        tree.branches[number] = replace(
            branch, id=number, parent=parent, scene=scenes[branch.scene], play=plays[branch.play], ticks=ticks
        )
    for mark in other.tree.bookmarks:
        point = tree.check(Point(points[mark.point.branch], mark.point.tick))
        if not any((m.name, m.point) == (mark.name, point) for m in tree.bookmarks):
            number = max((m.id for m in tree.bookmarks), default=0) + 1
            tree.bookmarks.append(Bookmark(number, mark.name, point, mark.time))
    for point, picture in other.thumbnails():
        draft.thumbnails.setdefault(tree.check(Point(points[point.branch], point.tick)), picture)


def _same(a: PlayedTick, b: PlayedTick) -> bool:
    return (a.action, a.steps, a.time, a.hash) == (b.action, b.steps, b.time, b.hash)


def _there(tree: Tree, point: Point) -> bool:
    return point.branch in tree.branches and point.tick <= tree.branches[point.branch].last


def write(path: Path, draft: Draft) -> None:
    """Writes a draft to a new file, whole or not at all. Raises RecordingError where that cannot be done."""
    at_once(writing(path, draft))


def writing(path: Path, draft: Draft) -> Work[None]:
    """`write`, a piece at a time; given up, it leaves nothing."""
    source = draft.source
    facts = facts_of(source.title, source.world, source.fingerprint, source.rate, source.space, source.time)
    beside = path.with_name(f".{path.name}.{time.time_ns()}.draft")
    if path.exists():
        raise RecordingError(f"{path} is there already; name another file by --out")
    create(beside, facts)
    try:
        with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as base:
            base.execute("BEGIN")
            rows = Rows(base, Seals(facts_seal(facts)))
            yield from _write_rows(rows, draft)
            rows.seal_end()
            base.execute("COMMIT")
        put_in_place(beside, path)
    except FileExistsError:
        raise RecordingError(f"{path} is there already; name another file by --out") from None
    except (sqlite3.Error, OSError) as error:
        raise RecordingError(f"{path} cannot be written ({error}); name another file by --out") from None
    finally:
        beside.unlink(missing_ok=True)


def _write_rows(rows: Rows, draft: Draft) -> Work[None]:
    for number, (when, environment) in draft.plays.items():
        rows.add_play(number, when, environment)
    for number, scene in draft.scenes.items():
        rows.add_scene(number, scene)
    for branch in draft.tree.branches.values():
        rows.add_branch(branch, None if branch.parent is None else draft.tree.sealed(branch.parent))
        before: Sealed = branch
        for number, (played, ends) in enumerate(pieces(branch.ticks), branch.first + 1):
            if ends:
                yield
            rows.add_tick(Point(branch.id, number), played, before)
            before = played
    for mark in draft.tree.bookmarks:
        rows.add_bookmark(mark)
    thumbnails = Thumbnails()
    for point, picture in draft.thumbnails.items():
        yield
        rows.add_thumbnail(point, thumbnails.encode(picture))
