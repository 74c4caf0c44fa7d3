"""Main memory that a GPU copies from by itself, while nobody waits: it is locked to its pages."""

import logging
import mmap
import weakref

import torch
from torch import Tensor


def page_locked(size: int) -> Tensor:
    """So many bytes of it, uint8, to the page: torch's own allocator would take the next power of two."""
    memory = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    address = memory.data_ptr()
    failure = int(torch.cuda.cudart().cudaHostRegister(address, size, 0))
    if failure:
        said = f"memory is locked by torch, which takes up to twice as much (CUDA error {failure})"
        logging.getLogger("playhead").warning(said)
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    weakref.finalize(memory, _unlock, address).atexit = False
    return memory


def _unlock(address: int) -> None:
    torch.cuda.synchronize()  # a copy may be under way
    torch.cuda.cudart().cudaHostUnregister(address)
