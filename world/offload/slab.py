"""Slabs: the large weights of one block side by side in one buffer, so that they are moved by one copy."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from playhead.world.offload.page_locked import page_locked

ALIGNMENT = 512
"""Bytes, as torch aligns what it allocates on a GPU: a product finds a slab's weight as it does its own."""


class WeightPlace(NamedTuple):
    """Where a weight lies in a slab: its first byte, shape and number type; `rows` of each of its parts."""

    offset: int
    shape: tuple[int, int]
    dtype: torch.dtype
    rows: tuple[int, ...]


class SlabLayout:
    """Where the weights of every block lie, by kind. `size`: bytes of a slab."""

    def __init__(
        self,
        kinds: Mapping[str, Sequence[tuple[int, int]]],
        number_type: Callable[[Sequence[tuple[int, int]]], torch.dtype],
    ) -> None:
        """`kinds`: shapes `(out, in)` of the layers that serve as one product, side by side; `number_type`:
        that of their weights.
        """
        self.places: dict[str, WeightPlace] = {}
        self.size = 0
        for kind, shapes in kinds.items():
            rows = tuple(out for out, _ in shapes)
            shape = (sum(rows), shapes[0][1])
            dtype = number_type(shapes)
            self.places[kind] = WeightPlace(self.size, shape, dtype, rows)
            self.size += -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The weights that lie in a buffer of bytes, by kind."""
        return {
            kind: buffer[p.offset : p.offset + prod(p.shape) * p.dtype.itemsize].view(p.dtype).view(p.shape)
            for kind, p in self.places.items()
        }

    def parts(self, buffer: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """The same, each as the weights of the layers that it is made of."""
        return {kind: view.split(self.places[kind].rows) for kind, view in self.views(buffer).items()}


class Slab(Protocol):
    """A block's weights where they are kept."""

    layout: SlabLayout

    def fill(self, buffer: Tensor) -> None:
        """Copies them into a buffer of bytes in main memory."""

    def weights(self) -> dict[str, tuple[Tensor, ...]]:
        """The weights of each kind's layers, in the number type of play."""


class PackedSlab:
    """Weights packed in main memory, page-locked if `pinned`: one copy away from a GPU."""

    def __init__(self, layout: SlabLayout, weights: Mapping[str, Tensor], pinned: bool) -> None:
        """`weights`: each kind's, on any device."""
        self.layout = layout
        empty = layout.size == 0 or not pinned
        self.buffer = torch.empty(layout.size, dtype=torch.uint8) if empty else page_locked(layout.size)
        for kind, view in layout.views(self.buffer).items():
            view.copy_(weights[kind])

    def fill(self, buffer: Tensor) -> None:
        buffer[: self.layout.size].copy_(self.buffer)

    def weights(self) -> dict[str, tuple[Tensor, ...]]:
        return self.layout.parts(self.buffer)


class MappedSlab:
    """Weights in a memory-mapped file, in its own number type: they take no memory that is not given back."""

    def __init__(self, layout: SlabLayout, mapped: Mapping[str, Sequence[Tensor]]) -> None:
        self.layout, self._mapped = layout, mapped

    def fill(self, buffer: Tensor) -> None:
        for kind, parts in self.layout.parts(buffer).items():
            for part, kept in zip(parts, self._mapped[kind], strict=True):
                part.copy_(kept)

    def weights(self) -> dict[str, tuple[Tensor, ...]]:
        return {
            kind: tuple(part.to(self.layout.places[kind].dtype) for part in parts)
            for kind, parts in self._mapped.items()
        }
