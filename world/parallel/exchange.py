"""Self-attention of tokens that are spread over ranks, through the part of the cache that each of them holds.

A pass is given one of these in a cache's place. Shapes: B sessions, F frames, n of a frame's tokens on each
of R ranks, L = F * n; `(B, heads, L, head_dim)` come in and go out.
"""

import torch
from torch import Tensor

from playhead.world.kv_cache import KVCache
from playhead.world.parallel.ranks import Ranks
from playhead.world.split_attention import attend_with_sums


class Exchange:
    """One pass's way through `cache`, which is this rank's part."""

    def __init__(self, cache: KVCache, ranks: Ranks) -> None:
        self.cache, self.ranks = cache, ranks

    def own(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Where keys and values of this rank's tokens may be written before `read`, None for nowhere."""
        return None

    def read(self, layer: int, q: Tensor) -> Tensor:
        """What this rank's queries read, once keys and values were written where `own` says."""
        raise NotImplementedError

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same with keys and values given."""
        raise NotImplementedError


class HeadExchange(Exchange):
    """Tokens change places for heads, and back: the cache holds all tokens of this rank's heads."""

    _sent: Tensor | None = None  # (heads, 3, B, L, head_dim), so that each rank's heads lie together

    def own(self, layer: int) -> tuple[Tensor, Tensor]:
        sent = self._buffer()
        return sent[:, 1].transpose(0, 1), sent[:, 2].transpose(0, 1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.own(layer)
        keys.copy_(k)
        values.copy_(v)
        return self.read(layer, q)

    def read(self, layer: int, q: Tensor) -> Tensor:
        sent, self._sent = self._sent, None
        assert sent is not None, "`own` comes first"
        sent[:, 0].transpose(0, 1).copy_(q)
        cache, count, size = self.cache, len(self.cache.slots), self.ranks.size
        got = self.ranks.swap(sent).unflatten(0, (size, -1))  # (R, heads / R, 3, B, L, head_dim)
        got = got.unflatten(4, (count, -1)).permute(
            2, 3, 1, 4, 0, 5, 6
        )  # (3, B, own heads, F, R, n, head_dim)
        slots = cache.own(layer)
        if slots is None:
            cache.put(layer, got[1].flatten(2, 4), got[2].flatten(2, 4))
        else:
            for held, new in zip(slots, got[1:], strict=True):
                held.unflatten(2, new.shape[2:5]).copy_(new)
        found = cache.read(layer, got[0].flatten(2, 4))  # (B, heads / R, F * N, head_dim)
        found = found.unflatten(2, (count, size, -1)).permute(3, 0, 2, 4, 1, 5)
        back = self.ranks.swap(found.contiguous())  # (R, B, F, n, heads / R, head_dim)
        return back.permute(1, 2, 3, 0, 4, 5).flatten(3, 4).flatten(1, 2).transpose(1, 2)

    def _buffer(self) -> Tensor:
        cache, size = self.cache, self.ranks.size
        _, batch, heads, _, head_dim = cache.k.shape
        length = len(cache.slots) * cache.tokens // size
        shape = (heads * size, 3, batch, length, head_dim)
        self._sent = torch.empty(shape, device=cache.k.device, dtype=cache.sink_base.dtype)
        return self._sent


class QueryExchange(Exchange):
    """Every rank reads for all queries what it holds, all heads of its tokens; sums merge the parts.

    As in flash decoding (Dao et al. 2023), over ranks.
    """

    def own(self, layer: int) -> tuple[Tensor, Tensor] | None:
        return self.cache.own(layer)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.cache.put(layer, k, v)
        return self.read(layer, q)

    def read(self, layer: int, q: Tensor) -> Tensor:
        size = self.ranks.size
        asked = self.ranks.gather(q.contiguous())  # (R, B, heads, L, head_dim)
        found, sums = attend_with_sums(asked.movedim(0, 2).flatten(2, 3), *self.cache.held(layer))
        batch, heads, length, _ = q.shape
        sums = sums.reshape(batch, heads, size, length).movedim(2, 0).float().contiguous()
        parts = self.ranks.swap(found.unflatten(2, (size, length)).movedim(2, 0).contiguous())
        weights = torch.softmax(self.ranks.swap(sums), 0).unsqueeze(-1)  # (R, B, heads, L, 1)
        return (parts * weights).sum(0).to(q.dtype)
