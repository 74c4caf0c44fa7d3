"""Frames on their way from a device to main memory."""

import numpy as np
import torch
from torch import Tensor


class FrameCopy:
    """Copies a session's frames, beside what its thread does meanwhile where a GPU has them.

    A GPU writes into page-locked memory by itself, and fast; to other memory its driver takes small steps
    and lets the caller wait. One such buffer is kept and handed out as copies, since frames are for keeps.
    """

    def __init__(self) -> None:
        self._frames: Tensor | None = None
        self._buffer: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def start(self, frames: Tensor) -> None:
        """Begins to copy `frames`, which may change after `take` alone."""
        self._frames = frames
        if not frames.is_cuda or not frames.numel():
            return
        if self._buffer is None or self._buffer.shape != frames.shape:
            self._buffer = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
        self._buffer.copy_(frames, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(frames.device))

    def take(self) -> np.ndarray:
        """Waits for the frames. Returns a copy that is the caller's."""
        assert self._frames is not None, "no copy was started"
        frames, self._frames = self._frames, None
        if self._arrived is not None and self._buffer is not None:
            self._arrived.synchronize()
            self._arrived = None
            return self._buffer.numpy().copy()
        return frames.cpu().numpy().copy() if frames.device.type == "cpu" else frames.cpu().numpy()
