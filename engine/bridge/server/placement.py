"""On which device a new session is played: the one with the most free memory, of those that have room."""

import os
from collections.abc import Callable, Mapping, Sequence

import torch

from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.offload.memory_budget import told
from playhead.world.size import cache_bytes
from playhead.world.world import World

SPARE = 256 * 2**20
"""Bytes of a GPU that stay free: what a pass is computed in comes and goes."""

FreeMemory = Callable[[torch.device], int]
"""Bytes of a device that are free."""


def free_memory(device: torch.device) -> int:
    """Bytes of a device that sessions may be given: free ones, and those that torch holds for nobody."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, torch.cuda.mem_get_info(device)[0] + held - SPARE)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not tell is taken to have room
        return 2**62


def session_bytes(world: World) -> int:
    """Bytes of one session's KV cache and its decoder's memory, which are nearly all that it takes."""
    held = cache_bytes(world.config, world.dtype.itemsize, world.cache is not None)
    return held + world.frame_decoder.carried


class Placement:
    """Chooses among the copies of a world, one a device. Lives on the server's thread."""

    def __init__(self, free: FreeMemory = free_memory) -> None:
        self._free = free
        self._opening: dict[World, int] = {}

    def place(self, worlds: Sequence[World], needed: int, sessions: Mapping[World | None, int]) -> World:
        """The copy on whose device a session that takes `needed` bytes goes.

        `sessions`: how many each copy has; the fewest decide where memory is equal, as that of one device is
        that is named twice. A copy that is alone is not asked: its device says itself what it has no room
        for. Raises BridgeError where no device has room.
        """
        if len(worlds) == 1:
            return worlds[0]
        left = {world: self.left(world) for world in worlds}
        room = [world for world in worlds if left[world] >= needed]
        if not room:
            have = ", ".join(f"{world.device} has {told(max(0, left[world]))}" for world in worlds)
            raise BridgeError("limit", f"a session more takes {told(needed)}, and {have} free; close one")
        return max(room, key=lambda world: (left[world], -sessions.get(world, 0)))

    def left(self, world: World) -> int:
        """Bytes for further sessions on a copy's device: free ones and those of free rows (`World.wide`),
        less those of sessions that are being opened.
        """
        rows = world.wide.room * session_bytes(world) if world.wide is not None else 0
        return self._free(world.device) + rows - self._opening.get(world, 0)

    def begin(self, world: World, needed: int) -> None:
        """A session of a copy is being opened."""
        self._opening[world] = self._opening.get(world, 0) + needed

    def opened(self, world: World, needed: int) -> None:
        """What was being opened has its memory by now, or never will."""
        self._opening[world] -= needed
