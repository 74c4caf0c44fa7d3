"""Which blocks are offloaded, and to where: as few as a budget asks for."""

from dataclasses import dataclass
from typing import Literal

from playhead.world.errors import WorldError
from playhead.world.offload.memory_budget import MemoryBudget, told, told_least
from playhead.world.offload.needs import Needs

Room = Literal["passes", "full", "nothing"]
LOCKED = 0.75
"""The share of main memory that is locked at most where no budget says how much."""


@dataclass(frozen=True)
class OffloadPlan:
    """`layers`: those of each generator that are offloaded, rising; of them `mapped` stay in their file.

    `room`: for which recorded passes there is room too: all, those of a full window, or none.
    """

    needs: Needs
    layers: tuple[int, ...]
    mapped: frozenset[int] = frozenset()
    room: Room = "passes"

    @property
    def pinned_bytes(self) -> int:
        """Bytes of main memory that blocks take there."""
        return self.needs.generators * (len(self.layers) - len(self.mapped)) * self.needs.slabs

    @property
    def recorded(self) -> Room | None:
        """What may be recorded as CUDA graphs: what is read from a file is read anew each time.

        That saves the host's time, which is most of a tick's else.
        """
        if not self.layers and self.room == "passes":
            return None
        return "nothing" if self.mapped else self.room

    def tick_bytes(self, passes: int, turns: int = 0) -> int:
        """Bytes that are brought to the device in a tick.

        `passes`: how many the tick has; `turns`: how often a pass is another generator's than the one before,
        which finds its first two blocks missing.
        """
        count = len(self.layers)
        if count <= 2:  # they lie in the buffers for good, but where generators take turns
            return turns * count * self.needs.layout.size
        return (passes * count + turns * 2) * self.needs.layout.size

    def __str__(self) -> str:
        """`12 of 30 blocks in main memory`, `20 of 30 blocks, 8 of them on the disk`, or that none is."""
        count, layers = len(self.layers), self.needs.layers
        if not count:
            return "no block"
        if not self.mapped:
            return f"{count} of {layers} blocks in main memory"
        if len(self.mapped) == count:
            return f"{count} of {layers} blocks on the disk"
        return f"{count} of {layers} blocks, {len(self.mapped)} of them on the disk"


def spread(count: int, among: int) -> tuple[int, ...]:
    """`count` of `among` numbers, evenly, so that what is brought comes while others are computed."""
    return tuple((2 * i + 1) * among // (2 * count) for i in range(count))


def make_plan(
    name: str,
    needs: Needs,
    budget: MemoryBudget,
    device: str,
    *,
    file: bool,
    whole: bool,
    device_memory: int | None = None,
    main_memory: int | None = None,
) -> OffloadPlan | None:
    """The plan for a world, or None where a budget asks for nothing.

    `device`: its type. `file`: whether weights lie in a file as they are wanted; random ones and those that
    are low bit do not. `whole`: a CPU has all of it laid out, so that no block can leave. Raises WorldError
    where a budget cannot be met, with the least that would do.
    """
    if device == "cuda":
        return _on_gpu(name, needs, budget, file, device_memory, main_memory)
    if budget.vram is not None:
        raise WorldError(f"--vram is for an NVIDIA GPU, and this is {device}; leave it out")
    if device != "cpu":
        raise WorldError(f"--ram is for the CPU or an NVIDIA GPU, and this is {device}; leave it out")
    if budget.ram is None or needs.as_ever() <= budget.ram:
        return None
    if whole:
        raise _too_little(name, "--ram", budget.ram, needs.as_ever(), needs, ": none of its blocks can leave")
    count = _fewest(needs, budget.ram, needs.layers if file else 0)
    if count is None:
        raise _too_little(name, "--ram", budget.ram, needs.least(file), needs, "" if file else _NO_FILE)
    layers = spread(count, needs.layers) if count else ()
    return OffloadPlan(needs, layers, frozenset(layers))


_NO_FILE = ": random weights, and low-bit ones, have no file from which they could be read"


def _on_gpu(
    name: str,
    needs: Needs,
    budget: MemoryBudget,
    file: bool,
    device_memory: int | None,
    main_memory: int | None,
) -> OffloadPlan | None:
    if budget.vram is None:
        raise WorldError(
            "on a GPU --ram says where blocks may lie that --vram has no room for: give that too"
        )
    vram = min(budget.vram, device_memory or budget.vram)
    fewest = _fewest(needs, vram, needs.layers)
    if fewest is None:
        raise _too_little(name, "--vram", vram, needs.least(True), needs)
    # Passes that are not recorded take several times as long as a few blocks more that are brought for them.
    count = _fewest(needs, vram - needs.recorded_full, needs.layers)
    if count is not None and count != fewest:
        try:
            plan = _of_so_many(name, needs, count, vram, budget, file, main_memory)
        except WorldError:  # of main memory, which fewer may fit
            plan = None
        if plan is not None and not plan.mapped:
            return plan
    return _of_so_many(name, needs, fewest, vram, budget, file, main_memory)


def _of_so_many(
    name: str,
    needs: Needs,
    count: int,
    vram: int,
    budget: MemoryBudget,
    file: bool,
    main_memory: int | None,
) -> OffloadPlan | None:
    """The plan that offloads `count` blocks. Raises WorldError where they lie nowhere else."""
    used = needs.on_device(count)
    spare: Room = "nothing"
    if used + needs.recorded_full <= vram:
        spare = "passes" if used + needs.recorded <= vram else "full"
    if not count:
        return None if spare == "passes" else OffloadPlan(needs, (), room=spare)
    layers = spread(count, needs.layers)
    option, room = "--ram", budget.ram
    if room is None and main_memory is not None:
        option, room = "what may be locked of main memory,", int(LOCKED * main_memory)
    if room is None:
        return OffloadPlan(needs, layers, room=spare)
    each = needs.generators * needs.slabs
    pinned = room // each
    if pinned < count:  # what is read goes through two buffers of main memory
        pinned = max(0, room - 2 * needs.buffer) // each
    if pinned >= count:
        return OffloadPlan(needs, layers, room=spare)
    if not file:
        raise _too_little(name, option, room, count * each, needs, _NO_FILE)
    if room < 2 * needs.buffer:
        raise _too_little(name, option, room, 2 * needs.buffer, needs)
    chosen = spread(count - pinned, count)
    return OffloadPlan(needs, layers, frozenset(layers[i] for i in chosen), spare)


def _fewest(needs: Needs, room: int, most: int) -> int | None:
    """How few blocks have to be offloaded to fit; None if even `most` are not enough."""
    return next((n for n in range(most + 1) if needs.on_device(n) <= room), None)


def _too_little(name: str, option: str, given: int, least: int, needs: Needs, why: str = "") -> WorldError:
    inside = ""
    if option == "--vram" or not why:
        inside = f", of which caches take {told(needs.cache)} and a tick's work {told(needs.work)}"
    return WorldError(
        f"the world `{name}` does not fit {option} {told(given)}{why}; "
        f"the least that would do is {told_least(least)}{inside}"
    )
