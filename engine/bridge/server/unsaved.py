"""Where a server records what nobody has saved yet, and what one that was killed has left there.

That is a hidden folder among the saved recordings, with a lock beside it that its server holds for as long as
it lives. A server that ends in order takes the folder along; of one that was killed the next one saves it.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from playhead.engine.recording.edit import repairing
from playhead.engine.recording.file import put_in_place
from playhead.engine.recording.finding import Summary
from playhead.engine.recording.schema import RecordingError
from playhead.engine.work import Work
from playhead.world.home import own_folder

PREFIX = ".unsaved-"
WHOLE = ".whole"
"""The ending of a file there that is to be saved under its name once it is written."""


class Unsaved:
    """The folder of a server that lives. `saves_here`: it is on the disk that recordings are saved to.

    Where that disk knows no locks, it is one of the system's temporary folders, which is nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        """Makes it. Raises RecordingError where that cannot be done."""
        path = folder / f"{PREFIX}{secrets.token_hex(8)}"
        try:
            self._lock = _take(path)  # before it is there: nobody is to find it without
            self.saves_here = self._lock is not None
            self.path = own_folder(path) if self.saves_here else Path(tempfile.mkdtemp(prefix="playhead-"))
        except OSError as error:
            raise RecordingError(f"{folder} cannot be written ({error.strerror})") from None

    def new_file(self) -> Path:
        return self.path / f"{secrets.token_hex(8)}.playhead"

    def close(self) -> None:
        """Takes away the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            _give_back(self._lock)


def rescuing(folder: Path, most: int, tell: Callable[[str], None]) -> Work[None]:
    """Saves what servers that were killed have left in a folder, where `most` recordings may be.

    Tells a sentence for each. What there is no room for and what cannot be read stays where it is; so does,
    where this is given up, all that was not saved yet.
    """
    for left in sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir()):
        lock = _take(left)
        if lock is None:  # its server lives
            continue
        try:
            for path in [*left.glob("*.draft"), *left.glob(f"*{WHOLE}")]:  # what was being written then
                path.unlink(missing_ok=True)
            kept = 0
            for file in sorted(left.glob("*.playhead")):
                said, done = yield from _saving(file, folder, most)
                kept += not done
                if said:
                    tell(said)
            if not kept:
                shutil.rmtree(left, ignore_errors=True)
        finally:
            _give_back(lock)


def _saving(file: Path, folder: Path, most: int) -> Work[tuple[str, bool]]:
    """Saves one file; what there is to say of it, and whether it is not needed any more."""
    whole = file.with_suffix(WHOLE)  # half of one, of a server that is killed again, is not saved
    try:
        summary = Summary.read(file)
        if not summary.ticks:
            return "", True
        if sum(1 for _ in folder.glob("*.playhead")) >= most:
            return f"{most} recordings are in {folder}, which is all: {file} stays unsaved", False
        yield from repairing(file, whole)
        out = _put(whole, folder, summary.time)
        for part in file.parent.glob(f"*{file.name}*"):  # with its log and its lock
            part.unlink(missing_ok=True)
    except (RecordingError, OSError) as error:
        return f"{file}, which a server that was killed has left, cannot be saved: {error}", False
    finally:
        whole.unlink(missing_ok=True)
    return f"a server was killed before this was saved, so it is now: {out}", True


def _put(whole: Path, folder: Path, when: float) -> Path:
    """Gives what was begun at that time a name that is free, clients save there too."""
    stem = f"rescued-{time.strftime('%Y%m%d-%H%M%S', time.localtime(when))}"
    path, number = folder / f"{stem}.playhead", 1
    while True:
        try:
            put_in_place(whole, path)
            return path
        except FileExistsError:
            number += 1
            path = folder / f"{stem}-{number}.playhead"


def _take(path: Path) -> FileLock | None:
    """The lock of a server's folder; None where its server has it, or where there are no locks."""
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except NotImplementedError:
        Path(lock.lock_file).unlink(missing_ok=True)
        return None
    return lock


def _give_back(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
