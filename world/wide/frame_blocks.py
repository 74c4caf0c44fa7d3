"""Memory for the frames of a pass: a block for all of its sessions, handed out as it is.

A GPU writes into page-locked memory by itself. To copy 64 sessions' parts out of it took 2.8 ms on an
H200's host, where to dream them takes 3.2: so each has its part of the block, which is free again once nobody
has any. A session that stands still keeps a whole block from that: where many do, parts are copied all the
same.
"""

import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MOST = 128 * 2**20
"""Bytes that blocks may take before parts are copied."""


class FrameBlocks:
    """Fetches frames `pictures` uint8 `(rows, F, H, W, 3)` of passes; for one thread at a time."""

    def __init__(self, pictures: Tensor) -> None:
        self._pictures = pictures
        self._most = max(2, MOST // max(1, pictures.nbytes))
        self._held: list[weakref.ref[np.ndarray]] = []
        self._block: Tensor | None = None

    def start(self) -> None:
        """Has the device copy the frames to main memory, after what it was told before."""
        # Torch keeps page-locked memory that was freed, and gives it out again.
        pinned = self._pictures.is_cuda
        self._block = torch.empty(self._pictures.shape, dtype=self._pictures.dtype, pin_memory=pinned)
        self._block.copy_(self._pictures, non_blocking=True)

    def take(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The frames of some rows, once the device is done; each the caller's own."""
        assert self._block is not None, "no copy was started"
        frames, self._block = self._block.numpy(), None
        self._held = [held for held in self._held if held() is not None]
        if len(self._held) >= self._most:
            return [frames[row].copy() for row in rows]
        self._held.append(weakref.ref(frames))
        return [frames[row] for row in rows]
