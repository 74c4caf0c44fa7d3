"""What ranks hand each other, written by each right into the memory of the others.

A collective of NCCL has kernels of its own that wait for those of the other ranks, and what it carries lies
twice. Where GPUs reach each other's memory, copies and a barrier between the streams do the same, and a CUDA
graph holds them like any other work. Torch calls such memory symmetric.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class SharedMemory(Protocol):
    """Memory of a size on every rank. `parts`: each rank's, bytes that this one may write to."""

    parts: Sequence[Tensor]

    def barrier(self) -> None:
        """Has what the device is told next wait until all ranks' devices are here."""
        ...


class SymmetricMemory:
    """That of GPUs, of the ranks that torch knows. Raises RuntimeError where they have none."""

    def __init__(self, size: int, device: torch.device) -> None:
        from torch.distributed import _symmetric_memory as symmetric

        group = dist.group.WORLD
        assert group is not None, "the ranks have met"
        self._handle = symmetric.rendezvous(allocate(size, device), group)
        ranks = range(dist.get_world_size())
        self.parts: Sequence[Tensor] = [self._handle.get_buffer(r, (size,), torch.uint8) for r in ranks]

    def barrier(self) -> None:
        self._handle.barrier(channel=0)


def allocate(size: int, device: torch.device) -> Tensor:
    """Bytes that other ranks may be given access to. Raises RuntimeError, or other errors, for none."""
    from torch.distributed import _symmetric_memory as symmetric

    return symmetric.empty(size, dtype=torch.uint8, device=device)


class PeerMemory:
    """Exchanges of `rank`, one among `size`, which are at the same exchange in the same order.

    What it returns lies where the next exchange of as many bytes is written: who wants it is to read it
    before that. Memory for a number of bytes is allocated by `allocate` when they are first exchanged, and
    stays: recorded graphs know it.
    """

    def __init__(self, rank: int, size: int, allocate: Callable[[int], SharedMemory]) -> None:
        self._rank, self._size, self._allocate = rank, size, allocate
        self._shared: dict[int, SharedMemory] = {}
        self._last = 0  # bytes of the last exchange

    def swap(self, x: Tensor) -> Tensor | None:
        """As `Ranks.swap`; None where a graph is being recorded and there is no memory for it yet."""
        shared = self._ready(x.nbytes)
        if shared is None:
            return None
        given, part = x.view(torch.uint8).flatten(), x.nbytes // self._size
        for rank in self._others_first():
            self._place(shared, rank, part).copy_(given[rank * part : (rank + 1) * part])
        shared.barrier()
        return shared.parts[self._rank].view(x.dtype).view(x.shape)

    def gather(self, x: Tensor) -> Tensor | None:
        """As `Ranks.gather`; None likewise."""
        shared = self._ready(x.nbytes * self._size)
        if shared is None:
            return None
        given = x.view(torch.uint8).flatten()
        for rank in self._others_first():
            self._place(shared, rank, x.nbytes).copy_(given)
        shared.barrier()
        return shared.parts[self._rank].view(x.dtype).view(self._size, *x.shape)

    def _others_first(self) -> list[int]:
        """All ranks, each beginning with the next one, so that no memory is written by all at once."""
        return [(self._rank + 1 + n) % self._size for n in range(self._size)]

    def _place(self, shared: SharedMemory, rank: int, part: int) -> Tensor:
        """Where this rank's part lies at another."""
        return shared.parts[rank][self._rank * part : (self._rank + 1) * part]

    def _ready(self, count: int) -> SharedMemory | None:
        """Memory that may be written to. What lay there was read, or its readers are waited for.

        A rank that is past the barrier of another exchange knows that all have come to that, after they read.
        """
        shared = self._shared.get(count)
        if shared is None:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return None
            shared = self._shared[count] = self._allocate(count)
        if self._last == count:
            shared.barrier()
        self._last = count
        return shared
