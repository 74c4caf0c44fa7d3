"""What a `.playhead` file is: an SQLite database of these tables, and the hashes that chain it.

A tick's `hash` is that of its frames, chained to the one before it in the tree: equal hashes mean that every
frame up to there was equal. Its `seal` is that of the row, chained in the same way: a row that was changed,
lost or moved is found without simulating anything. Rows lost at the very end are found by the seal of that.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping

import numpy as np

from playhead.world.errors import PlayheadError

APPLICATION_ID = 0x506C4864
"""`PlHd`: what SQLite's header says such a file is for."""
VERSION = 3
READ = (2, 3)
"""Schemas that are read: in the second, a recording's end had no seal."""
HASH_BYTES = 16
SEAL_BYTES = 8
LATEST = 2**37
"""Seconds since 1970: the year 6325. Calendars end somewhere."""
TABLES = {
    "recording": "CREATE TABLE recording (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "plays": "CREATE TABLE plays (id INTEGER PRIMARY KEY, time REAL NOT NULL, environment TEXT NOT NULL)",
    "scenes": (
        "CREATE TABLE scenes (id INTEGER PRIMARY KEY, fields TEXT NOT NULL, context BLOB NOT NULL, "
        "seal BLOB NOT NULL)"
    ),
    "branches": (
        "CREATE TABLE branches (id INTEGER PRIMARY KEY, parent INTEGER, first INTEGER NOT NULL, "
        "scene INTEGER NOT NULL, seed TEXT NOT NULL, play INTEGER NOT NULL, start BLOB NOT NULL, "
        "time REAL NOT NULL, seal BLOB NOT NULL)"
    ),
    "ticks": (
        "CREATE TABLE ticks (branch INTEGER NOT NULL, tick INTEGER NOT NULL, action TEXT NOT NULL, "
        "steps INTEGER NOT NULL, source TEXT NOT NULL, time REAL NOT NULL, took REAL NOT NULL, "
        "hash BLOB NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (branch, tick)) WITHOUT ROWID"
    ),
    "bookmarks": (
        "CREATE TABLE bookmarks (id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, tick INTEGER NOT NULL, "
        "name TEXT NOT NULL, time REAL NOT NULL)"
    ),
    "thumbnails": (
        "CREATE TABLE thumbnails (branch INTEGER NOT NULL, tick INTEGER NOT NULL, jpeg BLOB NOT NULL, "
        "PRIMARY KEY (branch, tick)) WITHOUT ROWID"
    ),
}
"""Every table and how it is made; a file that says otherwise is not read."""

Cell = int | float | str | bytes | None


class RecordingError(PlayheadError):
    """A recording cannot be written, read or replayed."""


def chain(before: bytes, frames: np.ndarray) -> bytes:
    """The hash of a tick's frames, chained to the one before: BLAKE2b of 16 bytes."""
    digest = hashlib.blake2b(before, digest_size=HASH_BYTES)
    digest.update(np.ascontiguousarray(frames).data)
    return digest.digest()


def seal(before: bytes, row: Iterable[Cell]) -> bytes:
    """The seal of a row's values, chained to the one before: BLAKE2b of 8 bytes."""
    digest = hashlib.blake2b(before, digest_size=SEAL_BYTES)
    for value in row:
        data = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(len(data).to_bytes(4, "little"))
        digest.update(data)
    return digest.digest()


def facts_seal(facts: Mapping[str, bytes]) -> bytes:
    """The seal of what a recording says of itself."""
    said = sorted(facts.keys() - {"seal", "end"})
    return seal(b"", (part for key in said for part in (key, facts[key])))


def end_seal(base: sqlite3.Connection) -> bytes:
    """The seal of where everything in a recording ends."""
    last = "SELECT branch, max(tick), seal FROM ticks GROUP BY branch ORDER BY branch"
    rows = [row for table in ("plays", "scenes", "branches", "bookmarks")
            for row in base.execute(f"SELECT '{table}', count(*), max(id) FROM {table}")]  # fmt: skip
    rows += base.execute(last).fetchall()
    rows += base.execute("SELECT id, seal FROM branches ORDER BY id").fetchall()
    return seal(b"end", (cell for row in rows for cell in row))
