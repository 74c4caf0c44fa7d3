"""Carriers: what brings a slab into a device's buffer while the device computes."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from playhead.world.offload.page_locked import page_locked
from playhead.world.offload.slab import PackedSlab, Slab


class Carrier(Protocol):
    """Brings slabs into buffers, which are known by their numbers."""

    def bring(self, number: int, buffer: Tensor, slab: Slab) -> None:
        """Has a buffer filled, after all that was asked of the device so far, and returns at once."""

    def wait(self, number: int) -> None:
        """Has the device go on no further before that buffer is filled; nothing if none is under way."""

    def forget(self) -> None:
        """Drops what is under way: it was asked for in a recording that failed."""

    @property
    def recording(self) -> bool:
        """Whether what is asked of the device is recorded now, and not done."""


class ThreadCarrier:
    """Within main memory: a thread copies while others compute."""

    recording = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "offload")
        self._under_way: dict[int, Future[None]] = {}

    def bring(self, number: int, buffer: Tensor, slab: Slab) -> None:
        self._under_way[number] = self._thread.submit(slab.fill, buffer)

    def wait(self, number: int) -> None:
        if (copied := self._under_way.pop(number, None)) is not None:
            copied.result()

    def forget(self) -> None:
        self._under_way.clear()


class StreamCarrier:
    """To a CUDA device, on a stream of its own: the order is kept by events, and the host waits for no copy.

    What lies in a file is read by a thread into page-locked buffers first. The host waits for that thread,
    since a device cannot wait for what was not asked of it yet; the thread for copies out of its buffers.
    """

    def __init__(self, device: torch.device, size: int, reads: bool) -> None:
        """`size`: bytes of the largest slab; `reads`: whether some lie in a file."""
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._thread = ThreadPoolExecutor(1, "offload")
        self._under_way: dict[int, torch.cuda.Event | Future[torch.cuda.Event]] = {}
        pages = [page_locked(size) for _ in range(2 if reads else 0)]
        self._read: list[tuple[Tensor, torch.cuda.Event]] = [(page, torch.cuda.Event()) for page in pages]

    @property
    def recording(self) -> bool:
        return torch.cuda.is_current_stream_capturing()

    def bring(self, number: int, buffer: Tensor, slab: Slab) -> None:
        free = torch.cuda.Event()  # a new one each time: one that was recorded in a graph serves nowhere else
        free.record(torch.cuda.current_stream(self._device))
        if isinstance(slab, PackedSlab):
            self._under_way[number] = self._copy(buffer, slab.buffer, slab.layout.size, free)
        else:
            self._under_way[number] = self._thread.submit(self._read_and_copy, buffer, slab, free)

    def _copy(self, buffer: Tensor, source: Tensor, size: int, free: torch.cuda.Event) -> torch.cuda.Event:
        filled = torch.cuda.Event()
        self._stream.wait_event(free)
        copy_on(self._stream, buffer[:size], source[:size])
        filled.record(self._stream)
        return filled

    def _read_and_copy(self, buffer: Tensor, slab: Slab, free: torch.cuda.Event) -> torch.cuda.Event:
        page, copied = self._read.pop(0)
        copied.synchronize()
        slab.fill(page)
        filled = self._copy(buffer, page, slab.layout.size, free)
        self._read.append((page, filled))
        return filled

    def wait(self, number: int) -> None:
        filled = self._under_way.pop(number, None)
        if isinstance(filled, Future):
            filled = filled.result()
        if filled is not None:
            torch.cuda.current_stream(self._device).wait_event(filled)

    def forget(self) -> None:
        self._under_way.clear()


def copy_on(stream: torch.cuda.Stream, target: Tensor, source: Tensor) -> None:
    """Asks a stream for a copy out of page-locked memory."""
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)


def pinned_rate(device: torch.device, size: int = 2**27) -> float:
    """Bytes a second at which a CUDA device is filled from page-locked memory, the best of a few copies."""
    source = page_locked(size)
    target = torch.empty(size, dtype=torch.uint8, device=device)
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return size / best
