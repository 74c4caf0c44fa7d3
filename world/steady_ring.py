"""Where frames lie in a ring whose newest block always has the same slots, once the ring is full.

A frame that comes takes the slot of the one that falls out, elsewhere: then every tick of a full window is in
other places, and has to be recorded as a CUDA graph of its own. Here the block under way has the last slots,
and what lay there is copied to where frames fall out. By its bytes that is a thousandth of a tick of a large
world, which is recorded once.
"""

from collections.abc import Sequence


class SteadyRing:
    """Of `frames` slots from slot `first` on. A frame is known by its absolute index."""

    def __init__(self, first: int, frames: int) -> None:
        self._first, self._size = first, frames
        self._slots: dict[int, int] = {}

    def slot(self, frame: int) -> int:
        """That of a committed frame which is still held."""
        return self._slots[frame]

    @property
    def frames(self) -> list[int]:
        """Those committed and held, oldest first."""
        return sorted(self._slots)

    def clear(self) -> None:
        """Forgets all of them."""
        self._slots = {}

    def make_room(self, count: int) -> tuple[range, list[tuple[int, int]]]:
        """The slots of a block of `count` frames, and what has to be copied before: from a slot to another.

        The oldest frames fall out, just enough of them. Asked again before the block is committed, it says
        the same, and nothing is to be copied.
        """
        end = self._first + self._size
        gone = len(self._slots) + count - self._size
        if gone <= 0:
            first = self._first + len(self._slots)
            return range(first, first + count), []
        last = range(end - count, end)
        kept = {frame: self._slots[frame] for frame in self.frames[gone:]}
        free = sorted({*range(self._first, last.start)} - {*kept.values()})
        moves = []
        for frame, slot in kept.items():
            if slot in last:
                kept[frame] = free.pop(0)
                moves.append((slot, kept[frame]))
        self._slots = kept
        return last, moves

    def commit(self, frame: int, slot: int) -> None:
        """A frame of the block is there."""
        self._slots[frame] = slot

    def state(self) -> list[int]:
        """Each frame and its slot, one pair after the other."""
        return [number for pair in self._slots.items() for number in pair]

    def load_state(self, state: Sequence[int]) -> None:
        self._slots = dict(zip(state[::2], state[1::2], strict=True))
