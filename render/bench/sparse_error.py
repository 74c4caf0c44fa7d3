"""How far sparse attention is from dense in play: on a world's own queries, keys and values."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from playhead.engine.session import Session
from playhead.scenes.scene import Scene
from playhead.world.action import Action
from playhead.world.kv_cache import KVCache
from playhead.world.sparse_attention import sparse_attention
from playhead.world.world import World


class WatchedCache:
    """A cache whose layers read as ever, while sparse backends read beside them.

    `lost`: of each backend, sums of means by layer `(layers, 2)`: how far it is from what was read, and that.
    """

    def __init__(self, cache: KVCache, backends: Sequence[str]) -> None:
        self._cache = cache
        self.lost = {name: cache.k.new_zeros((len(cache.k), 2), dtype=torch.float32) for name in backends}

    def __getattr__(self, name: str) -> object:
        return getattr(self._cache, name)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._cache.put(layer, k, v)
        return self.read(layer, q)

    def read(self, layer: int, q: Tensor) -> Tensor:
        found = self._cache.read(layer, q)
        if self._cache.visible == self._cache.frames:  # before, there is little to leave out
            slots, held = self._cache.held_slots(layer), self._cache.held(layer)
            for backend, sums in self.lost.items():
                apart = sparse_attention(q, *held, backend, slots).float() - found.float()
                sums[layer] += torch.stack([apart.abs().mean(), found.float().abs().mean()])
        return found


def played_errors(
    world: World, scene: Scene, ticks: int, backends: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Relative L1 distance from dense over all layers, and of the furthest layer, by backend.

    Of so many ticks with a full window, walked by dense attention: so errors are those of one layer, not what
    becomes of them from tick to tick. Passes are not recorded.
    """
    session = Session(world, scene.context, scene.seed)
    state = session._state
    state.graphs.enabled, state.passes = False, None
    while state.cache.length < state.cache.frames:
        session.step(Action())
    watched = WatchedCache(state.cache, backends)
    state.cache = cast(KVCache, watched)
    held = frozenset({"forward"} & set(world.config.action.seen))
    for _ in range(ticks):
        session.step(Action(held))
    found = {}
    for backend, sums in watched.lost.items():
        each = sums[:, 0] / sums[:, 1]
        found[backend] = float(sums[:, 0].sum() / sums[:, 1].sum()), float(each.max())
    return found
