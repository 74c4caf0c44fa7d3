"""Writes a play to a `.playhead` file: one SQLite database, on a thread of its own.

Schema 1: `recording` (world, fingerprint, environment, seed and context of the start) and `ticks` (number,
action, steps, source, wall-clock time, hash of the frames chained to the one before).
"""

import hashlib
import io
import logging
import queue
import sqlite3
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from engine.fingerprint import environment, fingerprint
from engine.session import Session
from world.action import Action
from world.errors import PlayheadError

APPLICATION_ID = 0x506C4864
"""`PlHd`: what SQLite's header says such a file is for."""
VERSION = 1
HASH_BYTES = 16
SCHEMA = """
CREATE TABLE recording (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE ticks (tick INTEGER PRIMARY KEY, action TEXT NOT NULL, steps INTEGER NOT NULL,
  source TEXT NOT NULL, time REAL NOT NULL, hash BLOB NOT NULL);
"""


class RecordingError(PlayheadError):
    """A recording cannot be written, read or replayed."""


def chain(before: bytes, frames: np.ndarray) -> bytes:
    """The hash of a tick's frames, chained to the one before: BLAKE2b of 16 bytes."""
    digest = hashlib.blake2b(before, digest_size=HASH_BYTES)
    digest.update(np.ascontiguousarray(frames).data)
    return digest.digest()


class Recorder:
    """Records a session from its start on. `failure` says in a sentence why it has stopped, if it has."""

    def __init__(self, path: Path, session: Session) -> None:
        """Creates the file. Raises RecordingError where that cannot be done or something is there already."""
        if path.exists():
            raise RecordingError(f"{path} is there already; name another file to record to")
        if session.tick:
            raise RecordingError("a recording begins with its session: reset it first")
        context = io.BytesIO()
        start = session.context
        arrays = {"frames": start.frames, "actions": start.actions}
        arrays |= {f"prompt_{i}": prompt for i, prompt in enumerate(start.prompts)}
        for name in ("features", "condition", "latents"):
            if getattr(start, name) is not None:
                arrays[name] = getattr(start, name)
        np.savez_compressed(context, **arrays)
        facts: dict[str, bytes] = {
            "world": session.world.config.name.encode(),
            "fingerprint": msgspec.json.encode(fingerprint(session.world)),
            "environment": msgspec.json.encode(environment(session.world)),
            "seed": str(session.seed).encode(),
            "context": context.getvalue(),
            "start": chain(b"", session.frames),
        }
        try:
            with sqlite3.connect(path) as base:
                base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                base.execute(f"PRAGMA user_version = {VERSION}")
                base.execute("PRAGMA journal_mode = WAL")
                base.executescript(SCHEMA)
                base.executemany("INSERT INTO recording VALUES (?, ?)", facts.items())
            base.close()
        except sqlite3.Error as error:
            raise RecordingError(f"{path} cannot be written ({error}); name another file") from None
        self.path, self.failure = path, ""
        self._hash = facts["start"]
        self._rows: queue.SimpleQueue[tuple[int, Action, int, str, float, np.ndarray] | None]
        self._rows = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def add(self, tick: int, action: Action, steps: int, source: str, frames: np.ndarray) -> None:
        """Takes in a tick; returns at once."""
        if not self.failure:
            self._rows.put((tick, action, steps, source, time.time(), frames))

    def close(self) -> None:
        """Returns when all is written, in one file."""
        self._rows.put(None)
        self._thread.join()

    def _write(self) -> None:
        base = None
        try:
            base = sqlite3.connect(self.path, isolation_level=None)
            base.execute("PRAGMA synchronous = NORMAL")
            while (row := self._rows.get()) is not None:
                tick, action, steps, source, when, frames = row
                self._hash = chain(self._hash, frames)
                said = msgspec.json.encode([sorted(action.buttons), dict(action.axes)]).decode()
                values = (tick, said, steps, source, when, self._hash)
                base.execute("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?)", values)
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            base.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            self.failure = f"recording to {self.path} stopped ({error}); what was written is kept"
            logging.getLogger("playhead").warning(self.failure)
        finally:
            if base is not None:
                base.close()
