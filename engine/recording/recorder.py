"""Writes what is played to a `.playhead` file as it happens, on a thread of its own.

Every tick is its own transaction in SQLite's write-ahead log, so a process that is killed loses at most what
had not yet reached the thread; and play waits for the thread rather than run ahead of it by more than two
ticks. Moving the log into the file, which waits for the disk, is left to a second thread: the first one never
waits for more than a write to memory.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from playhead.engine.fingerprint import environment, fingerprint
from playhead.engine.recording.file import connect, create, lock
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.rows import Rows, Seals, facts_of
from playhead.engine.recording.schema import RecordingError, chain
from playhead.engine.recording.thumbnails import Thumbnails
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Sealed, Tree
from playhead.scenes.scene import Scene
from playhead.world.world import World

Job = Callable[[Rows], None]
CHECKPOINT_AFTER = 500
"""Transactions after which the log is moved into the file: some megabytes."""
BEHIND = 2
"""Ticks that may be shown and not be written yet."""
PATIENCE = 5.0
"""Seconds that play waits for a disk that hangs; then it waits no more until that has recovered."""


class ChangedError(RecordingError):
    """A file was gone on with since it was read."""


class Recorder:
    """The file that is written to. `failure` says in a sentence why that has stopped, if it has.

    All methods return at once save `flush` and `close`; they may be called by one thread at a time,
    `discard` by any.
    """

    def __init__(self, path: Path, world: World, title: str = "") -> None:
        """Creates the file. Raises RecordingError where that cannot be done or something is there already."""
        config = world.config
        rate = float(config.ticks_per_second)
        create(path, facts_of(title, config.name, fingerprint(world), rate, config.action, time.time()))
        self._start(path, world, 1, {})

    @classmethod
    def resume(cls, recording: Recording, world: World) -> "Recorder":
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
        self._lock = lock(path)
        try:
            self._seals = self._begin(path, world, play, scene_seals, tree)
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

    def _begin(
        self, path: Path, world: World, play: int, scene_seals: dict[int, bytes], tree: Tree | None
    ) -> Seals:
        """Notes that a play begins, in a file that is as it was when it was read. Returns its seals."""
        try:
            with contextlib.closing(connect(path)) as base:
                base.execute("PRAGMA journal_mode = WAL")
                facts = base.execute("SELECT value FROM recording WHERE key = 'seal'").fetchone()[0]
                here = environment(world)
                if tree is not None and not _as_read(base, play, tree):
                    raise ChangedError(f"{path} was gone on with by another play; open it again")
                seals = Seals(facts, scene_seals)
                rows = Rows(base, seals)
                rows.open_end()
                rows.add_play(play, time.time(), here)
                return seals
        except (sqlite3.Error, TypeError) as error:
            raise RecordingError(f"{path} cannot be written ({error}); record to another file") from None

    def add_scene(self, number: int, scene: Scene) -> None:
        """Embeds a scene, so that the file stands alone."""
        self._put(lambda rows: rows.add_scene(number, scene))

    def add_branch(self, branch: Branch, before: Sealed | None, frames: np.ndarray | None = None) -> None:
        """Begins a branch: a root with its first frames, or after the tick or the root `before`."""

        def job(rows: Rows) -> None:
            if before is None:
                assert frames is not None
                branch.start = chain(b"", frames)
            else:
                branch.start = before.hash
            rows.add_branch(branch, before)

        self._put(job)

    def add(
        self,
        point: Point,
        tick: PlayedTick,
        before: Sealed,
        frames: np.ndarray,
    ) -> None:
        """Takes in a tick that was played after `before`; its hash and seal are filled in later."""

        def job(rows: Rows) -> None:
            tick.hash = chain(before.hash, frames)
            rows.add_tick(point, tick, before)
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
        self._put(lambda rows: rows.add_bookmark(mark))

    def add_thumbnail(self, point: Point, picture: np.ndarray) -> None:
        """Takes in a small picture, uint8 `(h, w, 3)`, of a point."""
        self._put(lambda rows: rows.add_thumbnail(point, self._thumbnails.encode(picture)))

    def flush(self) -> None:
        """Returns when all that was taken in is written, or recording has stopped."""
        done = threading.Event()
        self._jobs.put(lambda rows: done.set())
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
        the file at this moment could else delay a server that has nothing to gain by its last rows.
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
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self.path)) as base:
            # Somebody who reads at this moment keeps the log beside the file; the next reader can do it.
            Rows(base, self._seals).seal_end()
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
            with contextlib.closing(connect(self.path)) as base:
                base.execute("PRAGMA wal_autocheckpoint = 0")
                rows = Rows(base, self._seals)
                while (job := self._jobs.get()) is not None and not self._discarded:
                    if not self.path.exists():
                        raise OSError("the file was removed")
                    job(rows)
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
            with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self.path)) as base:
                base.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _as_read(base: sqlite3.Connection, play: int, tree: Tree) -> bool:
    """Whether a file has what was read of it, and no more: its numbers are gone on with."""
    plays, branches = (base.execute(f"SELECT max(id) FROM {t}").fetchone()[0] for t in ("plays", "branches"))
    ticks = base.execute("SELECT count(*) FROM ticks").fetchone()[0]
    return (plays or 0, branches or 0, ticks) == (play - 1, max(tree.branches, default=0), tree.count)
