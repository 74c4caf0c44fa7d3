"""Writes what is played to a `.playhead` file as it happens, on a thread of its own.

Every tick is its own transaction in SQLite's write-ahead log, so a process that is killed loses at most what
had not yet reached the thread; and play waits for the thread rather than run ahead of it by more than two
ticks. Moving the log into the file, which waits for the disk, is left to a second thread: the first one never
waits for more than a write to memory.
"""

import contextlib
import io
import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from playhead.engine.fingerprint import environment, fingerprint
from playhead.engine.recording.schema import (
    APPLICATION_ID,
    TABLES,
    VERSION,
    Cell,
    RecordingError,
    chain,
    encode_action,
    end_seal,
    facts_seal,
    seal,
)
from playhead.engine.recording.tree import Bookmark, Branch, Place, PlayedTick, Tree
from playhead.scenes.scene import Scene, context_arrays
from playhead.world.home import own_folder
from playhead.world.world import World

if TYPE_CHECKING:
    from playhead.engine.bridge.wire.video import Jpeg
    from playhead.engine.recording.reader import Recording

Job = Callable[[sqlite3.Connection], None]
CHECKPOINT_AFTER = 500
"""Transactions after which the log is moved into the file: some megabytes."""
BEHIND = 2
"""Ticks that may be shown and not be written yet."""
PATIENCE = 5.0
"""Seconds that play waits for a disk that hangs; then it waits no more until that has recovered."""
WAIT = 10.0
"""Seconds that the writer waits for another program that holds the file."""


class InUseError(RecordingError):
    """Another play is being recorded to a file."""


class ChangedError(RecordingError):
    """A file was gone on with since it was read."""


class Recorder:
    """The file that is written to. `failure` says in a sentence why that has stopped, if it has.

    All methods return at once save `flush` and `close`; they may be called by one thread at a time,
    `discard` by any.
    """

    def __init__(self, path: Path, world: World, title: str = "") -> None:
        """Creates the file. Raises RecordingError where that cannot be done or something is there already."""
        create(path, describe(world, title))
        self._start(path, world, 1, {})

    @classmethod
    def resume(cls, recording: "Recording", world: World) -> "Recorder":
        """Goes on in the file of a recording, as a play of its own. Raises RecordingError if that cannot be:
        InUseError while another play does, ChangedError if one did since the file was read.

        The world has to be the one that was recorded: the same weights and configuration.
        """
        recorder = object.__new__(cls)
        number = max(recording.plays, default=0) + 1
        recorder._start(recording.path, world, number, recording.scene_seals, recording.tree)
        return recorder

    def _start(
        self,
        path: Path,
        world: World,
        play: int,
        scene_seals: dict[int, bytes],
        tree: Tree | None = None,
    ) -> None:
        self.path, self.play, self.failure = path, play, ""
        self._new, self._empty = play == 1, True
        self._thumbnails = Thumbnails()
        self._facts_seal = b""
        self._scene_seals = dict(scene_seals)
        self._lock = _lock(path)
        try:
            self._begin(path, world, play, tree)
        except BaseException:
            self._unlock()
            raise
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._due, self._ended, self._discarded = threading.Event(), False, False
        self._added = self._written = 0
        self._caught_up, self._patient = threading.Condition(), True
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._mover = threading.Thread(target=self._move, name="recorder log", daemon=True)
        self._thread.start()
        self._mover.start()

    def _begin(self, path: Path, world: World, play: int, tree: Tree | None) -> None:
        """Notes that a play begins, in a file that is as it was when it was read."""
        try:
            with contextlib.closing(_connect(path)) as base:
                base.execute("PRAGMA journal_mode = WAL")
                self._facts_seal = base.execute("SELECT value FROM recording WHERE key = 'seal'").fetchone()[
                    0
                ]
                said = msgspec.json.encode(environment(world)).decode()
                if tree is not None and not _as_read(base, play, tree):
                    raise ChangedError(f"{path} was gone on with by another play; open it again")
                base.execute("DELETE FROM recording WHERE key = 'end'")  # which is open again
                base.execute("INSERT INTO plays VALUES (?, ?, ?)", (play, time.time(), said))
        except (sqlite3.Error, TypeError) as error:
            raise RecordingError(f"{path} cannot be written ({error}); record to another file") from None

    def add_scene(self, number: int, scene: Scene) -> None:
        """Embeds a scene, so that the file stands alone."""

        def job(base: sqlite3.Connection) -> None:
            row = scene_row(number, scene)
            self._scene_seals[number] = seal(self._facts_seal, row)
            base.execute("INSERT INTO scenes VALUES (?, ?, ?, ?)", (*row, self._scene_seals[number]))

        self._put(job)

    def add_branch(
        self, branch: Branch, before: PlayedTick | Branch | None, frames: np.ndarray | None = None
    ) -> None:
        """Begins a branch: a root with its first frames, or after the tick or the root `before`."""

        def job(base: sqlite3.Connection) -> None:
            if before is None:
                assert frames is not None
                branch.start = chain(b"", frames)
                sealed = self._scene_seals[branch.scene]
            else:
                branch.start = before.hash if isinstance(before, PlayedTick) else before.start
                sealed = before.seal
            row = branch_row(branch)
            branch.seal = seal(sealed, row)
            base.execute("INSERT INTO branches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, branch.seal))

        self._put(job)

    def add(
        self,
        place: Place,
        tick: PlayedTick,
        before: PlayedTick | Branch,
        frames: np.ndarray,
    ) -> None:
        """Takes in a tick that was played after `before`; its hash and seal are filled in later."""

        def job(base: sqlite3.Connection) -> None:
            tick.hash = chain(before.hash if isinstance(before, PlayedTick) else before.start, frames)
            row = tick_row(place, tick)
            tick.seal = seal(before.seal, row)
            base.execute("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, tick.seal))
            with self._caught_up:
                self._written += 1
                self._caught_up.notify()

        self._empty = False
        self._added += 1
        self._put(job)

    def wait(self) -> None:
        """Returns as soon as all ticks but the last two are written, which they are already as a rule."""
        if self._near() or self.failure or not self._patient:
            self._patient |= self._near()
            return
        with self._caught_up:
            self._patient = self._caught_up.wait_for(lambda: self._near() or bool(self.failure), PATIENCE)

    def _near(self) -> bool:
        return self._added - self._written <= BEHIND

    def add_bookmark(self, mark: Bookmark) -> None:
        self._empty = False
        row = (mark.id, *mark.place, mark.name, mark.time)

        def insert(base: sqlite3.Connection) -> None:
            base.execute("INSERT INTO bookmarks VALUES (?, ?, ?, ?, ?)", row)

        self._put(insert)

    def add_thumbnail(self, place: Place, picture: np.ndarray) -> None:
        """Takes in a small picture, uint8 `(h, w, 3)`, of a place."""

        def job(base: sqlite3.Connection) -> None:
            row = (*place, self._thumbnails.encode(picture))
            base.execute("INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?)", row)

        self._put(job)

    def flush(self) -> None:
        """Returns when all that was taken in is written, or recording has stopped."""
        done = threading.Event()
        self._jobs.put(lambda base: done.set())
        while not done.wait(0.05) and self._thread.is_alive():
            pass

    def close(self) -> None:
        """Returns when all is written, in one file; none where nothing was played or marked."""
        self._jobs.put(None)
        self._thread.join()
        self._ended = True
        self._due.set()
        self._mover.join()
        try:
            self._finish()
        finally:
            self._unlock()

    def discard(self) -> None:
        """Stops and takes the file away with its log. Nothing is finished first, nor waited for: who reads
        the file at this moment could else hold up a server that has nothing to gain by its last rows.
        """
        self._discarded = self._ended = True
        self.failure = self.failure or f"recording to {self.path} has ended"
        self._jobs.put(None)
        self._due.set()
        with self._caught_up:
            self._caught_up.notify()
        self._remove()
        self._unlock()

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    def _unlock(self) -> None:
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _finish(self) -> None:
        if not self.failure and not self.path.exists():
            self._fail(OSError("the file was removed"))
        if self.failure:
            return
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(self.path)) as base:
            # Somebody who reads at this moment keeps the log beside the file; the next reader can do it.
            seal_end(base)
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            base.execute("PRAGMA journal_mode = DELETE")
        if self._new and self._empty:
            self.path.unlink(missing_ok=True)

    def _put(self, job: Job) -> None:
        if not self.failure:
            self._jobs.put(job)

    def _write(self) -> None:
        count = 0
        try:
            with contextlib.closing(_connect(self.path)) as base:
                base.execute("PRAGMA wal_autocheckpoint = 0")
                while (job := self._jobs.get()) is not None and not self._discarded:
                    if not self.path.exists():
                        raise OSError("the file was removed")
                    job(base)
                    count += 1
                    if count % CHECKPOINT_AFTER == 0:
                        self._due.set()
        except Exception as error:
            if not self._discarded:
                self._fail(error)
            with self._caught_up:
                self._caught_up.notify()
        if self._discarded:  # and where an open file cannot be removed, it can be now
            self._remove()

    def _fail(self, error: Exception) -> None:
        kept = "what was written is kept" if self.path.exists() else "nothing of it is left"
        self.failure = f"recording to {self.path} stopped ({error}); {kept}"
        logging.getLogger("playhead").warning(self.failure)

    def _move(self) -> None:
        while not self._ended:
            self._due.wait()
            self._due.clear()
            with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(self.path)) as base:
                base.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _lock(path: Path) -> FileLock:
    """The right to write to a file, which one play has at a time. Raises InUseError where that is another."""
    beside = path.with_name(f".{path.name}.lock")
    lock = FileLock(beside, timeout=0, mode=0o600, thread_local=False)  # one thread opens, another closes
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(f"{path} is being recorded by another play; record to another file") from None
    except NotImplementedError:
        said = f"{path.parent} knows no locks: see to it that no second play is recorded to {path.name}"
        logging.getLogger("playhead").warning(said)
    except OSError as error:
        raise RecordingError(f"{path} cannot be written ({error.strerror}); record to another file") from None
    return lock


def _as_read(base: sqlite3.Connection, play: int, tree: Tree) -> bool:
    """Whether a file holds what was read of it, and no more: its numbers are gone on with."""
    plays, branches = (base.execute(f"SELECT max(id) FROM {t}").fetchone()[0] for t in ("plays", "branches"))
    ticks = base.execute("SELECT count(*) FROM ticks").fetchone()[0]
    return (plays or 0, branches or 0, ticks) == (play - 1, max(tree.branches, default=0), tree.count)


def describe(world: World, title: str = "") -> dict[str, bytes]:
    """What a recording says of itself and its world, by name."""
    config = world.config
    return {
        "id": secrets.token_hex(8).encode(),
        "title": title.encode(),
        "world": config.name.encode(),
        "fingerprint": msgspec.json.encode(fingerprint(world)),
        "rate": repr(float(config.ticks_per_second)).encode(),
        "space": msgspec.json.encode(config.action),
        "time": repr(time.time()).encode(),
    }


def create(path: Path, facts: dict[str, bytes]) -> None:
    """Makes an empty recording; it is there whole or not at all. Raises RecordingError if that cannot be."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.parent.exists() and not path.parent.is_dir():
        raise RecordingError(f"{path.parent} is no folder; record to another")
    try:
        own_folder(path.parent)
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)  # what somebody played is nobody else's to read; its log inherits that
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as base:
            base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            base.execute(f"PRAGMA user_version = {VERSION}")
            base.execute("BEGIN")
            for statement in TABLES.values():
                base.execute(statement)
            base.executemany(
                "INSERT INTO recording VALUES (?, ?)", (facts | {"seal": facts_seal(facts)}).items()
            )
            base.execute("COMMIT")
        put_in_place(draft, path)
    except FileExistsError:
        raise RecordingError(f"{path} is there already; name another file to record to") from None
    except sqlite3.Error as error:
        raise RecordingError(f"{path} cannot be written ({error}); record to another folder") from None
    except OSError as error:
        raise RecordingError(
            f"{path} cannot be written ({error.strerror}); record to another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def seal_end(base: sqlite3.Connection) -> None:
    """Seals the end of a recording that is whole."""
    base.execute("INSERT OR REPLACE INTO recording VALUES ('end', ?)", (end_seal(base),))
    base.execute(f"PRAGMA user_version = {VERSION}")


def put_in_place(draft: Path, path: Path) -> None:
    """Gives a draft its name. Raises FileExistsError where something has it, since a moment ago too."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        draft.rename(path)


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


def tick_row(place: Place, tick: PlayedTick) -> tuple[Cell, ...]:
    """A tick's row but for its seal."""
    head = (place.branch, place.tick, encode_action(tick.action), tick.steps)
    return (*head, tick.source, tick.time, tick.took, tick.hash)


class Thumbnails:
    """Encodes small pictures as JPEGs; for one thread."""

    def __init__(self) -> None:
        self._encoders: dict[tuple[int, ...], Jpeg] = {}

    def encode(self, picture: np.ndarray) -> bytes:
        """A picture uint8 `(h, w, 3)` as a JPEG."""
        height, width = size = picture.shape[:2]
        from playhead.engine.bridge.wire.video import (
            Jpeg,  # and PyAV with it, which nothing but thumbnails needs
        )

        if size not in self._encoders:
            self._encoders[size] = Jpeg(height, width, coarse=True)
        return self._encoders[size].encode(np.ascontiguousarray(picture), True)[0]


def decode_jpeg(data: bytes) -> np.ndarray:
    """A picture uint8 `(h, w, 3)`; av's errors for what is no JPEG."""
    import av

    with av.open(io.BytesIO(data), "r", format="mjpeg") as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def _connect(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=WAIT)
    base.execute("PRAGMA synchronous = NORMAL")
    return base
