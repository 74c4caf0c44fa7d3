"""The blocks of a generator that are not kept on its device, and the two buffers in which they take turns.

The n-th of them is always found in buffer n mod 2, so that its weights have one address for good: layers,
fused passes and recorded graphs know them by that. While one is computed the next is brought; a buffer is
filled anew as soon as what lies there was used. A pass leaves both with what the next one begins with.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from playhead.world.offload.carriers import Carrier
from playhead.world.offload.slab import Slab

Item = TypeVar("Item")
COUNT = 2


class Buffers:
    """Two buffers of `size` bytes each on a device, filled by `carrier`.

    `lock` is held by whose pass is under way. `moved`: bytes that were asked for so far, but for recorded
    passes.
    """

    def __init__(self, size: int, device: torch.device, carrier: Carrier) -> None:
        self.bytes = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(COUNT)]
        self.carrier = carrier
        self.lock = threading.RLock()
        self.moved = 0
        self._held: list[Slab | None] = [None] * COUNT

    def bring(self, number: int, slab: Slab, anew: bool = False) -> None:
        """Has a buffer filled with a slab, unless it is there already or on its way; `anew`: even then."""
        if self._held[number] is slab and not anew:
            return
        self.wait(number)  # what is on its way there, and nobody asked for after all, comes first
        self.carrier.bring(number, self.bytes[number], slab)
        self._held[number] = slab
        self.moved += slab.layout.size

    def wait(self, number: int) -> None:
        """Has the device wait until what was brought is there."""
        try:
            self.carrier.wait(number)
        except BaseException:  # it is not, and has to be brought again
            self._held[number] = None
            raise

    def forget(self) -> None:
        """Knows of nothing any more what lies in it."""
        self.carrier.forget()
        self._held = [None] * COUNT


class Offloaded:
    """Of one generator: which `layers` are offloaded, rising, and where their weights are kept.

    `passes` and `contexts`, a slab a layer each: what every pass multiplies by, and what only a context's
    keys and values need.
    """

    def __init__(
        self, buffers: Buffers, layers: Sequence[int], passes: Sequence[Slab], contexts: Sequence[Slab]
    ) -> None:
        self._buffers, self.layers = buffers, tuple(layers)
        self.passes, self.contexts = tuple(passes), tuple(contexts)
        self._number = {layer: number for number, layer in enumerate(layers)}

    def walk(self, items: Iterable[Item], of_context: bool = False) -> Iterator[Item]:
        """Items, one a block, in their order; a block's weights are there until the next is asked for."""
        slabs = self.contexts if of_context else self.passes
        with self._buffers.lock:
            if not self._buffers.carrier.recording:
                self._begin(slabs)
                yield from self._in_turn(items, slabs)
                return
            done = False
            try:  # a graph begins with what `ready` brought, and ends when all is there again
                yield from self._in_turn(items, slabs)
                self._join()
                done = True
            finally:
                if not done:
                    self._buffers.forget()

    def _in_turn(self, items: Iterable[Item], slabs: Sequence[Slab]) -> Iterator[Item]:
        count = len(slabs)
        for layer, item in enumerate(items):
            number = self._number.get(layer)
            if number is None:
                yield item
                continue
            buffer = number % COUNT
            self._buffers.wait(buffer)
            yield item
            following = number + COUNT if number + COUNT < count else buffer
            self._buffers.bring(buffer, slabs[following])

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Has all that a recorded pass begins with be there; meanwhile no other pass is under way."""
        with self._buffers.lock:
            self._begin(self.passes)
            self._join()
            yield

    def _begin(self, slabs: Sequence[Slab]) -> None:
        for buffer, slab in enumerate(slabs[:COUNT]):
            self._buffers.bring(buffer, slab)

    def _join(self) -> None:
        for buffer in range(COUNT):
            self._buffers.wait(buffer)
