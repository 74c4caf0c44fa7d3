"""Files that forms take and give: known by tickets that cannot be guessed, and never by a name."""

import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from playhead.world.errors import PlayheadError

MOST, BYTES = 64, 512 * 2**20
"""Files that are kept at the most, and bytes of them; for a newer one the oldest go."""


@dataclass(frozen=True)
class KeptFile:
    """Where it lies, what a browser is to take it for, and how large it is."""

    path: Path
    kind: str
    size: int


class KeptFiles:
    """A folder of this process's own, which goes with it. For any thread.

    `new` is for a file that is still to be written, and `keep` takes that in.
    """

    def __init__(self, most: int = MOST, size: int = BYTES) -> None:
        self._most, self._size = most, size
        self._folder = Path(tempfile.mkdtemp(prefix="playhead-demo-"))  # for this user alone
        self._kept: OrderedDict[str, KeptFile] = OrderedDict()
        self._lock = threading.Lock()

    def new(self) -> tuple[str, Path]:
        """A ticket, and where to write what it is for."""
        ticket = secrets.token_urlsafe(18)
        return ticket, self._folder / ticket

    def keep(self, ticket: str, path: Path, kind: str) -> None:
        """Lets the file of a ticket be had."""
        with self._lock:
            self._kept[ticket] = KeptFile(path, kind, path.stat().st_size)
            while len(self._kept) > self._most or self._held > self._size:
                self._kept.popitem(last=False)[1].path.unlink(missing_ok=True)

    def take(self, data: bytes, kind: str) -> str:
        """Keeps what was uploaded. Returns its ticket."""
        ticket, path = self.new()
        path.write_bytes(data)
        self.keep(ticket, path, kind)
        return ticket

    @property
    def _held(self) -> int:
        return sum(file.size for file in self._kept.values())

    def find(self, ticket: str) -> KeptFile | None:
        with self._lock:
            return self._kept.get(ticket)

    def read(self, ticket: str, named: str) -> bytes:
        """What was uploaded. Raises PlayheadError for what is not there (any more), as it is `named`."""
        found = self.find(ticket)
        try:
            data = None if found is None else found.path.read_bytes()
        except OSError:  # it went meanwhile
            data = None
        if data is None:
            raise PlayheadError(f"{named} is not here any more; upload it again")
        return data

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
