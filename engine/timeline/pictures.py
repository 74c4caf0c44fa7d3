"""Pictures of moments, to look for one by eye: recent frames, and thumbnails every two seconds."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from playhead.engine.recording.tree import Point, Tree

EVERY = 2.0
"""Seconds of play from one thumbnail to the next."""
WIDTH = 64
RECENT = 32 * 2**20
"""Bytes of frames that are at hand without decoding anything."""


class Pictures:
    """Frames and thumbnails by point; for any thread."""

    def __init__(self, tree: Tree, thumbnails: Iterable[tuple[Point, np.ndarray]] = ()) -> None:
        self._tree = tree
        self._lock = threading.RLock()
        self._thumbnails = dict(thumbnails)
        self._recent: OrderedDict[Point, np.ndarray] = OrderedDict()
        self._due = 0

    def remember(self, point: Point, frame: np.ndarray) -> None:
        """Keeps a moment's last frame, uint8 `(H, W, 3)`, for a while."""
        with self._lock:
            self._recent[point] = frame
            while len(self._recent) * frame.nbytes > RECENT:
                self._recent.popitem(last=False)

    def recent(self, point: Point) -> np.ndarray | None:
        """A frame that is still remembered."""
        with self._lock:
            return self._recent.get(point)

    def thumbnails(self) -> list[tuple[Point, np.ndarray]]:
        with self._lock:
            return sorted(self._thumbnails.items(), key=lambda item: item[0])

    def nearest(self, point: Point) -> tuple[Point, np.ndarray] | None:
        """The thumbnail nearest to a moment on the way to it, and the moment that it is of; None without."""
        line = {branch.id for branch in self._tree.lineage(point.branch)}
        near = [(p, small) for p, small in self.thumbnails() if p.branch in line]
        return min(near, key=lambda item: abs(item[0].tick - point.tick), default=None)

    def moved(self) -> None:
        """Takes note that play goes on from elsewhere: a thumbnail of that is due."""
        self._due = 0

    def add_thumbnail(self, point: Point, frame: np.ndarray, rate: float) -> np.ndarray | None:
        """Keeps a small picture of a frame if one is due, at `rate` ticks a second. Returns it then."""
        if (point.tick and point.tick < self._due) or point in self._thumbnails:
            return None
        by = max(1, frame.shape[1] // WIDTH)
        height, width = (side // by for side in frame.shape[:2])
        squares = frame[: height * by, : width * by].reshape(height, by, width, by, 3)
        small: np.ndarray = squares.mean((1, 3)).astype(np.uint8)
        with self._lock:
            self._thumbnails[point] = small
        self._due = point.tick + round(EVERY * rate) if point.tick else 0
        return small

    def enlarged(self, point: Point, size: tuple[int, int]) -> np.ndarray:
        """The nearest thumbnail on the way to a point, enlarged to `size` (height, width); black if none."""
        found = self.nearest(point)
        if found is None:
            return np.zeros((*size, 3), np.uint8)
        _, small = found
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, small.shape[:2], strict=True))
        picture: np.ndarray = small[rows][:, columns]
        return picture
