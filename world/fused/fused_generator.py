"""A generator of a GPU, its weights fixed, whose small operations are fused: `world.fused.ops`.

What is added to the hidden state and the norm that follows are one kernel, also from block to block; keys and
values are normed, turned and written into their slots by one; a GELU is a part of its product.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.action_module import ActionMemory
from playhead.world.attention import attention
from playhead.world.fused.actions import FusedActions
from playhead.world.fused.ops import Norm, Turn, add, add_norm, gelu_round, linear_gelu, norm, turn
from playhead.world.generator import Block, Generator, linear_layers
from playhead.world.low_bit import quantised, rounded_for
from playhead.world.rounding import Rounded


class Cache(Protocol):
    """What a fused pass asks of a `KVCache`, or of several that are joined."""

    def own(self, layer: int) -> tuple[Tensor, Tensor] | None: ...

    def read(self, layer: int, q: Tensor) -> Tensor: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class FusedGenerator:
    """`generator`, joined, whose weights no longer change; it is called with the caches themselves."""

    def __init__(self, generator: Generator) -> None:
        self._generator, self.config = generator, generator.config
        acting = generator.config.action.blocks if generator.config.action else ()
        numbers = {block: number for number, block in enumerate(acting)}
        self._blocks = [_FusedBlock(block, numbers.get(i)) for i, block in enumerate(generator.blocks)]
        self._modulations = torch.cat([block.modulation.detach() for block in generator.blocks]).unsqueeze(1)

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        cos_sin: Tensor,
        cache: Cache,
        action: Tensor | None = None,
        context: Sequence[tuple[Tensor, Tensor]] | None = None,
        memory: ActionMemory | None = None,
    ) -> Tensor:
        """As `Generator.forward`; `cos_sin` `(2, L, head_dim)`, or `(2, B, 1, L, head_dim)`."""
        g, eps = self._generator, self.config.eps
        embedding, modulation = g.told(timesteps, action)
        of_head = (g.head.modulation + embedding.unsqueeze(2)).flatten(0, 1)  # (B * F, 2, D)
        each = (self._modulations + modulation.flatten(0, 1)).to(embedding.dtype)  # (layers, B * F, 6, D)
        of = [*(block.precisions[0] for block in self._blocks), None]
        modulations = (*each.unbind(), of_head)
        norms = [Norm(m[:, 1], m[:, 0], eps, True, bits) for m, bits in zip(modulations, of, strict=True)]
        table = cos_sin.flatten(1, 2) if cos_sin.ndim == 5 else cos_sin
        tokens = g.patchify(x.to(embedding.dtype))
        if g.shares is not None:
            tokens = g.shares.own(tokens)
        h = tokens.flatten(0, 2).contiguous()
        y = norm(h, norms[0])
        for layer, (block, m) in enumerate(g.walk(zip(self._blocks, each.unbind(), strict=True))):
            keys_values = context[layer] if context is not None else None
            h, y = block(h, y, m, len(x), layer, table, cache, keys_values, memory, norms[layer + 1])
        found = g.head.head(y).view(*tokens.shape[:3], -1)
        if g.shares is not None:
            found = g.shares.whole(found)
        return g.flow(g.unpatchify(found, *x.shape[-2:]).float(), x, timesteps)


class _FusedBlock:
    """A `Block` that is given its input normed and returns its output so, for the one that follows.

    `acting`: which of the action modules it has, if any.
    """

    def __init__(self, block: Block, acting: int | None) -> None:
        own = block.self_attn
        self._block, self._acting, self._heads, self._eps = block, acting, own.heads, block.eps
        self._project = own._joined[0] if own._joined is not None else own.join()
        self._gain_q, self._gain_k = own.norm_q.weight, own.norm_k.weight
        self._widen, self._narrow = linear_layers(block.ffn)
        self._cross = getattr(block, "cross_attn", None)
        asked = self._cross.q if self._cross is not None else None
        layers = self._project, asked, self._widen
        self.precisions = [rounded_for(layer) if layer is not None else None for layer in layers]
        self._actions = FusedActions(block.action_model) if hasattr(block, "action_model") else None

    def __call__(
        self,
        x: Tensor,
        y: Tensor | Rounded,
        m: Tensor,
        batch: int,
        layer: int,
        cos_sin: Tensor,
        cache: Cache,
        context: tuple[Tensor, Tensor] | None,
        memory: ActionMemory | None,
        after: Norm,
    ) -> tuple[Tensor, Tensor | Rounded]:
        """`x`, and `y` which is that normed, `(R, D)` of a `batch` B; `m` `(B * F, 6, D)` the modulation.

        Returns what the block makes of `x`, and that normed by `after`.
        """
        found: Tensor = self._block.self_attn.o(_rows(self._attend(y, batch, layer, cos_sin, cache)))
        gate: Tensor | None = m[:, 2]
        if context is not None and self._cross is not None:
            plain = self._block.norm3
            by = Norm(plain.weight[None], plain.bias[None], plain.eps, precision=self.precisions[1])
            x, y = add_norm(x, found, by, gate)
            cross = self._cross
            q = turn(cross.q(y), Turn(self._heads, self._eps, cross.norm_q.weight), batch)
            found, gate = cross.o(_rows(attention(q, *context))), None
        if memory is not None and self._actions is not None and self._acting is not None:
            x, found = self._actions(add(x, found, gate), self._acting, batch, memory)
            gate = None
        x, y = add_norm(x, found, Norm(m[:, 4], m[:, 3], self._eps, True, self.precisions[2]), gate)
        return add_norm(x, self._narrow(self._wide(y)), after, m[:, 5])

    def _attend(self, y: Tensor | Rounded, batch: int, layer: int, cos_sin: Tensor, cache: Cache) -> Tensor:
        """`(R, D)` to what each token reads, `(B, heads, L, head_dim)`."""
        qkv = self._project(y)
        q, k, v = qkv.chunk(3, 1)
        q = turn(q, Turn(self._heads, self._eps, self._gain_q, cos_sin), batch)
        own = cache.own(layer)
        keys = turn(k, Turn(self._heads, self._eps, self._gain_k, cos_sin), batch, own[0] if own else None)
        values = turn(v, Turn(self._heads), batch, own[1] if own else None)
        return cache.attend(layer, q, keys, values) if own is None else cache.read(layer, q)

    def _wide(self, y: Tensor | Rounded) -> Tensor | Rounded:
        precision = rounded_for(self._narrow)
        if precision is not None:
            return gelu_round(self._widen(y), precision)
        if quantised(self._widen):
            return F.gelu(self._widen(y), approximate="tanh")
        assert isinstance(y, Tensor)
        return linear_gelu(y, self._widen.weight, self._widen.bias)


def _rows(x: Tensor) -> Tensor:
    """`(B, heads, L, head_dim)` to rows `(B * L, D)`: a view where a token's heads lie side by side."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)
