"""The two buffers of offloaded blocks, on a device that is only simulated: which weights a block finds there.

The device here carries out what it is asked in its own time: copies wait on their stream, and a recorded pass
is done when its graph is replayed, as CUDA does it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.offload.buffers import COUNT, Buffers, Offloaded
from playhead.world.offload.carriers import ThreadCarrier
from playhead.world.offload.slab import ALIGNMENT, MappedSlab, PackedSlab, SlabLayout
from tests.conftest import THOROUGH

LAYOUT = SlabLayout({"qkv": ((2, 3), (2, 3), (2, 3)), "o": ((5, 7),)}, lambda _: torch.float32)
CPU = torch.device("cpu")


def slab_of(value: float, mapped: bool = False) -> PackedSlab | MappedSlab:
    parts = {"qkv": [torch.full((2, 3), value + part) for part in range(3)], "o": [torch.full((5, 7), value)]}
    if mapped:
        return MappedSlab(LAYOUT, parts)
    return PackedSlab(LAYOUT, {kind: torch.cat(each) for kind, each in parts.items()}, pinned=False)


@dataclass
class SimulatedCarrier:
    """A device with a queue of its own for copies; `tape`: what a recording takes down instead."""

    tape: list[Callable[[], None]] | None = None
    _pending: dict[int, Callable[[], None]] = field(default_factory=dict)
    most: int = 0

    @property
    def recording(self) -> bool:
        return self.tape is not None

    def bring(self, number: int, buffer: Tensor, slab: PackedSlab | MappedSlab) -> None:
        assert number not in self._pending, "a buffer is filled again before anybody waited for it"
        assert slab.layout is LAYOUT
        self._pending[number] = lambda: slab.fill(buffer)
        self.most = max(self.most, len(self._pending))

    def wait(self, number: int) -> None:
        if (copy := self._pending.pop(number, None)) is not None:
            (self.tape.append if self.tape is not None else lambda work: work())(copy)

    def forget(self) -> None:
        self._pending.clear()


def view(buffers: Buffers, number: int) -> float:
    """What a block finds in its buffer: one value, in all of its weights."""
    found = LAYOUT.parts(buffers.bytes[number % COUNT])
    values = [
        float(found["o"][0].unique()),
        *(float(part.unique()) - i for i, part in enumerate(found["qkv"])),
    ]
    assert len(set(values)) == 1
    return values[0]


class Player:
    """Passes of generators with shared buffers, computed, or recorded and then replayed."""

    def __init__(self, sets: Sequence[Sequence[int]], layers: int) -> None:
        self.carrier = SimulatedCarrier()
        self.buffers = Buffers(LAYOUT.size, CPU, self.carrier)
        self.layers, self.sets = layers, sets
        self.models = [
            Offloaded(
                self.buffers,
                chosen,
                [slab_of(100 * which + layer) for layer in chosen],
                [slab_of(-100 * which - layer - 1, mapped=True) for layer in chosen],
            )
            for which, chosen in enumerate(sets)
        ]
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.seen: list[tuple[int, int, float]] = []

    def run(self, which: int, of_context: bool = False) -> None:
        def look(layer: int) -> None:
            if layer in self.sets[which]:
                number = list(self.sets[which]).index(layer)
                wanted = -100 * which - layer - 1 if of_context else 100 * which + layer
                assert view(self.buffers, number) == wanted, (which, layer, of_context)

        tape = self.carrier.tape
        for layer in self.models[which].walk(range(self.layers), of_context):
            if tape is None:
                look(layer)
            else:
                tape.append(lambda layer=layer: look(layer))

    def replay(self, which: int) -> None:
        with self.models[which].ready():
            if which not in self.graphs:
                self.carrier.tape = self.graphs[which] = []
                self.run(which)
                self.carrier.tape = None
            for work in self.graphs[which]:
                work()


PASSES = st.lists(
    st.tuples(st.sampled_from(["run", "context", "replay", "broken"]), st.integers(0, 1)), max_size=12
)


@settings(max_examples=60 * THOROUGH)
@given(
    layers=st.integers(1, 7),
    chosen=st.tuples(st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6))),
    passes=PASSES,
)
def test_a_block_always_finds_its_own_weights(layers: int, chosen: tuple[set[int], set[int]], passes) -> None:
    """Whatever passes follow each other: of either generator, recorded or not, whole or broken off."""
    player = Player([sorted(n for n in each if n < layers) for each in chosen], layers)
    for kind, which in passes:
        if kind == "replay":
            player.replay(which)
        elif kind == "broken":
            for _ in player.models[which].walk(range(layers)):
                break
        else:
            player.run(which, kind == "context")
    assert player.carrier.most <= COUNT


def test_a_recording_that_fails_spoils_no_pass_after_it() -> None:
    player = Player([range(5), range(5)], 5)
    player.run(0)
    with player.models[0].ready():
        player.carrier.tape = []
        for layer in player.models[0].walk(range(5)):
            if layer == 3:
                break
        player.carrier.tape = None
        player.run(0)
    player.replay(0)
    player.run(1)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_thread_brings_blocks_while_another_computes(mapped: bool) -> None:
    buffers = Buffers(LAYOUT.size, CPU, ThreadCarrier())
    slabs = [slab_of(10 * layer, mapped) for layer in range(5)]
    offloaded = Offloaded(buffers, range(5), slabs, slabs)
    for _ in range(3):
        for layer in offloaded.walk(range(5)):
            assert view(buffers, layer) == 10 * layer
    assert buffers.moved == 3 * 5 * LAYOUT.size + 2 * LAYOUT.size  # the next pass finds its first two


def test_what_could_not_be_brought_is_brought_again() -> None:
    class Failing(PackedSlab):
        fails = True

        def fill(self, buffer: Tensor) -> None:
            if self.fails:
                raise OSError("the disk is gone")
            super().fill(buffer)

    weights = {"qkv": torch.full((6, 3), 1.0), "o": torch.full((5, 7), 1.0)}
    slab = Failing(LAYOUT, weights, pinned=False)
    offloaded = Offloaded(Buffers(LAYOUT.size, CPU, ThreadCarrier()), [0], [slab], [slab])
    with pytest.raises(OSError, match="the disk is gone"):
        list(offloaded.walk(range(1)))
    slab.fails = False
    assert list(offloaded.walk(range(1))) == [0]


def test_weights_lie_aligned_and_apart_and_come_back_as_they_were() -> None:
    places = list(LAYOUT.places.values())
    assert all(place.offset % ALIGNMENT == 0 for place in places) and LAYOUT.size % ALIGNMENT == 0
    for slab in (slab_of(3), slab_of(3, mapped=True)):
        buffer = torch.full((LAYOUT.size,), 255, dtype=torch.uint8)
        slab.fill(buffer)
        found, kept = LAYOUT.parts(buffer), slab.weights()
        assert found.keys() == kept.keys()
        for kind, parts in found.items():
            assert all(torch.equal(*pair) for pair in zip(parts, kept[kind], strict=True))
