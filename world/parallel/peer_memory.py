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

    Each is made in a `slot`, and what it returns lies where the next one of that slot is written. Nobody
    waits before writing, as a recorded graph does not know what ran before it. So between two of a slot there
    has to be another exchange, asked for once what the first one gave was read: its barrier says that all
    have read. Memory is allocated by `allocate` when a slot first takes as many bytes, and stays: recorded
    graphs know it.
    """

    def __init__(self, rank: int, size: int, allocate: Callable[[int], SharedMemory]) -> None:
        self._rank, self._size, self._allocate = rank, size, allocate
        self._shared: dict[tuple[str, int], SharedMemory] = {}

    def swap(self, x: Tensor, slot: str) -> Tensor | None:
        """As `Ranks.swap`; None where a graph is being recorded and there is no memory for it yet."""
        part = x.nbytes // self._size
        given = x.view(torch.uint8).flatten()
        return self._exchange(slot, x, part, lambda rank: given[rank * part : (rank + 1) * part], x.shape)

    def gather(self, x: Tensor, slot: str) -> Tensor | None:
        """As `Ranks.gather`; None likewise."""
        given = x.view(torch.uint8).flatten()
        return self._exchange(slot, x, x.nbytes, lambda rank: given, (self._size, *x.shape))

    def _exchange(
        self, slot: str, x: Tensor, part: int, given: Callable[[int], Tensor], shape: Sequence[int]
    ) -> Tensor | None:
        """Writes `given(rank)`, of `part` bytes, to each rank. Returns what all have written here."""
        shared = self._memory(slot, part * self._size)
        if shared is None:
            return None
        mine = slice(self._rank * part, (self._rank + 1) * part)
        for n in range(self._size):  # the next one first, so that no memory is written by all at once
            rank = (self._rank + 1 + n) % self._size
            shared.parts[rank][mine].copy_(given(rank))
        shared.barrier()
        return shared.parts[self._rank].view(x.dtype).view(*shape)

    def _memory(self, slot: str, count: int) -> SharedMemory | None:
        shared = self._shared.get((slot, count))
        if shared is None:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return None
            shared = self._shared[slot, count] = self._allocate(count)
        return shared
