"""What each of several ranks has of a world's passes: a part of every frame's tokens.

All that takes tokens one by one (projections, cross-attention, feed-forward, action modules) needs no other
rank. Self-attention does. Where heads divide by the ranks, tokens change places for heads around it and back
(Ulysses; Jacobs et al. 2023): a rank's cache then holds all tokens of its heads. Where they do not divide, it
holds all heads of its tokens, and the queries go round instead: the keys of a window are many times as many
as the queries of a pass, so that a ring, in which keys travel, would move many times as much.
"""

import torch
from torch import Tensor

from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.kv_cache import KVCache
from playhead.world.parallel.exchange import Exchange, HeadExchange, QueryExchange
from playhead.world.parallel.ranks import Ranks


class Split:
    """How a world of `tokens` a frame is split over ranks.

    `by_heads`: whether the cache is split by heads, else by tokens; `cache_heads` and `cache_tokens` are
    those of a rank's cache, `own_tokens` those of a frame that a rank computes. Raises WorldError for tokens
    that cannot be split evenly, and for what cannot be where heads do not divide.
    """

    def __init__(
        self,
        config: WorldConfig,
        tokens: int,
        ranks: Ranks,
        attention: str | None = None,
        cache: str | None = None,
    ) -> None:
        self.ranks = ranks
        size, heads = ranks.size, config.generator.heads
        if tokens % size:
            right = ", ".join(str(n) for n in range(1, 9) if tokens % n == 0)
            raise WorldError(
                f"the world `{config.name}` has {tokens} tokens a frame, which --gpus {size} does not "
                f"divide; take one of {right}"
            )
        self.by_heads = heads % size == 0
        if not self.by_heads:
            uneven = f"the world `{config.name}` has {heads} heads, which --gpus {size} does not divide"
            for option, given in (("attention", attention), ("cache", cache)):
                if given is not None:
                    raise WorldError(f"{uneven}: --{option} {given} does not go with that; leave it out")
            if config.sampling.far is not None:
                raise WorldError(f"{uneven}: its far memory does not go with that; take another number")
        self.own_tokens = tokens // size
        self.cache_heads = heads // size if self.by_heads else heads
        self.cache_tokens = tokens if self.by_heads else self.own_tokens

    @property
    def cache_sizes(self) -> tuple[int, int]:
        """Heads, and tokens of a frame, in this rank's cache."""
        return self.cache_heads, self.cache_tokens

    @property
    def head_share(self) -> int:
        """Of how many ranks each has a share of the heads."""
        return self.ranks.size if self.by_heads else 1

    @property
    def leads(self) -> bool:
        """Whether this rank is the first, whose frames are shown."""
        return self.ranks.rank == 0

    def own(self, x: Tensor) -> Tensor:
        """This rank's part of all tokens: `(B, F, N, …)` to `(B, F, n, …)`."""
        return x.narrow(2, self.ranks.rank * self.own_tokens, self.own_tokens)

    def whole(self, x: Tensor) -> Tensor:
        """All tokens of each rank's part: `(B, F, n, …)` to `(B, F, N, …)`."""
        return torch.cat([*self.ranks.gather(x.contiguous())], 2)

    def own_table(self, table: Tensor, frames: int) -> Tensor:
        """This rank's part of a rope table `(2, F * N, head_dim)`."""
        return self.own(table.unflatten(1, (frames, -1))).flatten(1, 2).contiguous()

    def exchange(self, cache: KVCache) -> Exchange:
        """What a pass reads of this rank's cache and of the others'."""
        how = HeadExchange if self.by_heads else QueryExchange
        return how(cache, self.ranks)
