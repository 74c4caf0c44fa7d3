"""Where a server records what nobody has saved yet, and what one that was killed has left there.

That is a hidden folder among the saved recordings, with a lock beside it that its server holds for as long as
it lives. A server that ends in order takes the folder along; of one that was killed the next one saves it.
"""

import secrets
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from playhead.engine.recording.edit import repair
from playhead.engine.recording.reader import Summary
from playhead.engine.recording.schema import RecordingError
from playhead.world.home import own_folder

PREFIX = ".unsaved-"


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


def rescue(folder: Path, most: int) -> list[str]:
    """Saves what servers that were killed have left in a folder, where `most` recordings may be.

    Returns a sentence for each. What there is no room for and what cannot be read stays where it is.
    """
    said: list[str] = []
    for left in sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir()):
        lock = _take(left)
        if lock is None:  # its server lives
            continue
        try:
            found = [_save(file, folder, most) for file in sorted(left.glob("*.playhead"))]
            said += [sentence for sentence, _ in found if sentence]
            if all(done for _, done in found):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            _give_back(lock)
    return said


def _save(file: Path, folder: Path, most: int) -> tuple[str, bool]:
    """Saves one file; what there is to say of it, and whether it is not needed any more."""
    try:
        summary = Summary.read(file)
        if not summary.ticks:
            return "", True
        if sum(1 for _ in folder.glob("*.playhead")) >= most:
            return f"{most} recordings are in {folder}, which is all: {file} stays unsaved", False
        out = _free(folder, summary.time)
        repair(file, out)
        for part in file.parent.glob(f"*{file.name}*"):  # with its log and its lock
            part.unlink(missing_ok=True)
    except (RecordingError, OSError) as error:
        return f"{file}, which a server that was killed has left, cannot be saved: {error}", False
    return f"a server was killed before this was saved, so it is now: {out}", True


def _free(folder: Path, when: float) -> Path:
    """A name for what was begun at that time."""
    stem = f"rescued-{time.strftime('%Y%m%d-%H%M%S', time.localtime(when))}"
    path, number = folder / f"{stem}.playhead", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.playhead"
    return path


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
