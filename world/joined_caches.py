"""The caches of several sessions that share a pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from playhead.world.kv_cache import KVCache


class JoinedCaches:
    """Those of several states, for one pass: attention of each to its own."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self._caches = caches

    def own(self, layer: int) -> None:
        """There is no one place for all."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = (c.attend(layer, *(x[i : i + 1] for x in (q, k, v))) for i, c in enumerate(self._caches))
        return torch.cat(list(each))
