"""The file of a recording: made whole, opened to be read or written, and held by one play at a time."""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from playhead.engine.recording.schema import APPLICATION_ID, TABLES, VERSION, RecordingError, facts_seal
from playhead.world.home import own_folder

DAMAGE = (
    sqlite3.Error,
    msgspec.MsgspecError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    zlib.error,
)
"""What damaged values raise, here and in the libraries that read them."""
LARGEST_VALUE = 2**29
"""Bytes of one value in a file, at the most."""
WAIT = 10.0
"""Seconds that a writer waits for another program that holds the file."""


class InUseError(RecordingError):
    """Another play is being recorded to a file."""


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


def connect(path: Path) -> sqlite3.Connection:
    """A file's database, for writing."""
    base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=WAIT)
    base.execute("PRAGMA synchronous = NORMAL")
    return base


@contextlib.contextmanager
def open_base(path: Path) -> Iterator[sqlite3.Connection]:
    """A file's database, for reading. Raises RecordingError for a file that is missing or of another kind."""
    if not path.is_file():
        raise RecordingError(f"{path} is missing: it has to be a .playhead file")
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        copy = Path(folder) / "copy.playhead"
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            # A log beside the file could not be read where nothing may be written.
            shutil.copyfile(path, copy)
            log = path.with_name(path.name + "-wal")
            if log.is_file():
                shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
            path = copy
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as base:
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
            base.execute("PRAGMA trusted_schema = OFF")
            base.execute("PRAGMA cell_size_check = ON")
            base.execute("PRAGMA query_only = ON")
            base.execute("BEGIN")
            yield base


def lock(path: Path) -> FileLock:
    """The right to write to a file, which one play has at a time. Raises InUseError where that is another."""
    beside = path.with_name(f".{path.name}.lock")
    held = FileLock(beside, timeout=0, mode=0o600, thread_local=False)  # one thread opens, another closes
    try:
        held.acquire()
    except Timeout:
        raise InUseError(f"{path} is being recorded by another play; record to another file") from None
    except NotImplementedError:
        said = f"{path.parent} knows no locks: see to it that no second play is recorded to {path.name}"
        logging.getLogger("playhead").warning(said)
    except OSError as error:
        raise RecordingError(f"{path} cannot be written ({error.strerror}); record to another file") from None
    return held
