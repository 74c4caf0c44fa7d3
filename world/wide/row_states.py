"""States whose buffers are the rows of one block of memory, so that a pass over the block needs no copies."""

from dataclasses import replace

import torch
from torch import Tensor

from playhead.world.acceleration import Graphs
from playhead.world.kv_cache import KVCache
from playhead.world.rest import Rest
from playhead.world.state import WorldState


class RowCache(KVCache):
    """The row of a cache of many sessions: its memory, and counts of its own.

    `waits`: what is due in the far ring is left for the pass to copy, as `due`: a slot and its far slot; and
    under which mask that is read is left to it too.
    """

    waits = False
    due: tuple[int, int] | None = None

    @classmethod
    def of(cls, cache: KVCache, row: int) -> "RowCache":
        found = object.__new__(cls)
        found.__dict__.update(vars(cache))
        part = slice(row, row + 1)
        found.k, found.v, found.sink_base = cache.k[:, part], cache.v[:, part], cache.sink_base[:, part]
        found.slots, found.due, found.waits = [], None, False
        return found

    def _count_far(self) -> None:
        if self.waits:  # the pass has masks of its own, and no launch of a kernel to spare for each row
            self.distant = self._reached()
        else:
            super()._count_far()

    def _carry(self, frame: int) -> None:
        if self.due is not None:  # more than one at once: all but the last are copied right away
            raise AssertionError("a tick of one latent lets one frame fall out")
        if self.waits:
            self.due = self.slot(frame), self.far_slot(frame)
        else:
            super()._carry(frame)


def row_of(pool: WorldState, row: int) -> WorldState:
    """A session's state in a row of `pool`, with no past yet. What a tick is made of is its own.

    Nothing of it is recorded as a CUDA graph: those of its ticks are the pool's.
    """
    part = slice(row, row + 1)
    device = pool.latent.device

    def of(held: Tensor | None) -> Tensor | None:
        return None if held is None else held[part]

    rest = pool.rest
    mine: Rest | None = None
    if rest is not None:
        mine = Rest(rest.after, pool.latent[part])
        mine.ticks, mine.kept = rest.ticks[part], rest.kept[part]
    memory, latent = pool.decoder_memory, pool.latent[part]
    assert memory is not None, "the pool's decoder has run"
    return replace(
        pool,
        batch=1,
        cache=RowCache.of(pool.cache, row),
        latent=latent,
        shown=latent,
        noises=torch.zeros_like(pool.noises[:, part]),
        action=pool.action[part],
        rest=mine,
        cos_sin=torch.zeros_like(pool.cos_sin),
        foreseen={},
        keys_values={},
        condition=torch.zeros_like(pool.condition[part]),
        condition_source=pool.condition_source.clone(),
        previous=of(pool.previous),
        recent=pool.recent[part],
        decoder_memory=[m[part] for m in memory],
        fresh=True,
        frames=pool.frames[:0],
        pictures={},
        graphs=Graphs(device, False),
        decoding=Graphs(device, False),
        passes=None,
        row=row,
    )
