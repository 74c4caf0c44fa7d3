"""Pictures of moments, to look for one by eye: recent frames, and thumbnails every two seconds."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from playhead.engine.recording.tree import Place, Tree

EVERY = 2.0
"""Seconds of play from one thumbnail to the next."""
WIDTH = 64
RECENT = 32 * 2**20
"""Bytes of frames that are at hand without decoding anything."""


class Pictures:
    """Frames and thumbnails by place; for any thread."""

    def __init__(self, tree: Tree, thumbnails: Iterable[tuple[Place, np.ndarray]] = ()) -> None:
        self._tree = tree
        self._lock = threading.RLock()
        self._thumbnails = dict(thumbnails)
        self._recent: OrderedDict[Place, np.ndarray] = OrderedDict()
        self._due = 0

    def remember(self, place: Place, frame: np.ndarray) -> None:
        """Keeps a moment's last frame, uint8 `(H, W, 3)`, for a while."""
        with self._lock:
            self._recent[place] = frame
            while len(self._recent) * frame.nbytes > RECENT:
                self._recent.popitem(last=False)

    def recent(self, place: Place) -> np.ndarray | None:
        """A frame that is still remembered."""
        with self._lock:
            return self._recent.get(place)

    def forget(self) -> None:
        """Lets go of all frames; thumbnails stay."""
        with self._lock:
            self._recent.clear()

    def thumbnails(self) -> list[tuple[Place, np.ndarray]]:
        with self._lock:
            return sorted(self._thumbnails.items(), key=lambda item: item[0])

    def moved(self) -> None:
        """Takes note that play goes on from elsewhere: a thumbnail of that is due."""
        self._due = 0

    def add_thumbnail(self, place: Place, frame: np.ndarray, rate: float) -> np.ndarray | None:
        """Keeps a small picture of a frame if one is due, at `rate` ticks a second. Returns it then."""
        if (place.tick and place.tick < self._due) or place in self._thumbnails:
            return None
        by = max(1, frame.shape[1] // WIDTH)
        height, width = (side // by for side in frame.shape[:2])
        squares = frame[: height * by, : width * by].reshape(height, by, width, by, 3)
        small = squares.mean((1, 3)).astype(np.uint8)
        with self._lock:
            self._thumbnails[place] = small
        self._due = place.tick + round(EVERY * rate) if place.tick else 0
        return small

    def enlarged(self, place: Place, size: tuple[int, int]) -> np.ndarray:
        """The nearest thumbnail on the way to a place, enlarged to `size` (height, width); black if none."""
        line = {branch.id for branch in self._tree.lineage(place.branch)}
        near = [(p, small) for p, small in self.thumbnails() if p.branch in line]
        if not near:
            return np.zeros((*size, 3), np.uint8)
        _, small = min(near, key=lambda item: abs(item[0].tick - place.tick))
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, small.shape[:2], strict=True))
        return small[rows][:, columns]
