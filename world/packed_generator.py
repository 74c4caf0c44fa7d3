"""The generator of a world whose ticks are one pass, laid out for a CPU: the same sums in fewer steps.

At 40 tokens a tick the many small operations between the products take half as long as those. Here norm and
modulation are one, a GELU is a part of its product, pairs turn as complex numbers, and what hangs on the
noise level and the action alone is kept for when they come again.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.attention import Attend
from playhead.world.generator import Block, Generator
from playhead.world.norm import rms_norm
from playhead.world.packed import PackedLinear

REMEMBERED = 256
"""Levels and actions whose modulation is kept: 12 kB each, of a width of 512."""

Modulation = tuple[Tensor, ...]
"""A frame's shift, scale and gate, twice in a block, or the head's shift and scale; 1 + scale, `(D)` each."""


class PackedGenerator:
    """`generator`, joined, whose weights no longer change, for passes of about `rows` tokens.

    For generators of buttons alone; called as they are.
    """

    def __init__(self, generator: Generator, rows: int) -> None:
        if not fits(generator):
            raise ValueError("a packed generator knows no context and no action modules")
        self._generator, self.config = generator, generator.config
        patches = generator.patch_embedding
        self._patches = PackedLinear(_by_position(patches.weight), patches.bias, rows)
        self._blocks = [_PackedBlock(block, rows) for block in generator.blocks]
        head = generator.head
        self._head = PackedLinear(head.head.weight, head.head.bias, rows)
        self._of_blocks = torch.cat([_scales_by_one(b.modulation, (1, 4)) for b in generator.blocks])
        self._of_head = _scales_by_one(head.modulation, (1,))
        self._kept: OrderedDict[tuple[bytes, bytes], list[Modulation]] = OrderedDict()

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        cos_sin: Tensor,
        attend: Attend,
        action: Tensor | None = None,
        context: None = None,
        control: None = None,
    ) -> Tensor:
        """As `Generator.forward`."""
        b, f = x.shape[:2]
        turn = _turn(cos_sin)
        given = action if action is not None else timesteps.unsqueeze(-1)
        frames = [self._modulations(timesteps[i, j], given[i, j]) for i in range(b) for j in range(f)]
        *of_blocks, of_head = zip(*frames, strict=True)
        h = self._patches(self._patchify(x))
        for layer, (block, m) in enumerate(zip(self._blocks, of_blocks, strict=True)):
            h = block(h, b, m, layer, turn, attend)
        found = self._head(_modulate(h, of_head, 0, self.config.eps)).unflatten(0, (b, f))
        found = self._generator.unpatchify(found, *x.shape[-2:]).float()
        return self._generator.flow(found, x, timesteps)

    def _patchify(self, x: Tensor) -> Tensor:
        """`(B, F, C, h, w)` to patches `(B * F, N, p * p * C)`, by row, column and channel."""
        p, (b, f, c, h, w) = self.config.patch, x.shape
        x = x.reshape(b * f, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b * f, h // p * (w // p), -1).to(self._of_head.dtype)

    def _modulations(self, timestep: Tensor, action: Tensor) -> list[Modulation]:
        """Those of the blocks, then that of the head, for a level `()` and an action `(told)`."""
        key = timestep.numpy().tobytes(), action.numpy().tobytes()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        told = action.view(1, 1, -1) if self.config.buttons else None
        embedding, projected = self._generator.told(timestep.view(1, 1), told)
        of_blocks = self._of_blocks + projected[0]
        of_head = self._of_head + embedding[0]
        self._kept[key] = [m.unbind() for m in (*of_blocks, of_head[0])]
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        return self._kept[key]


class _PackedBlock:
    """A `Block` without context and action module."""

    def __init__(self, block: Block, rows: int) -> None:
        attention = block.self_attn
        weight, bias, self._gain = attention._side_by_side()
        self._heads, self._eps = attention.heads, block.eps
        self._project = PackedLinear(weight, bias, rows)
        self._merge = PackedLinear(attention.o.weight, attention.o.bias, rows)
        self._widen = PackedLinear(block.ffn[0].weight, block.ffn[0].bias, rows, "gelu")
        self._narrow = PackedLinear(block.ffn[2].weight, block.ffn[2].bias, rows)

    def __call__(
        self, x: Tensor, batch: int, m: Sequence[Modulation], layer: int, turn: Tensor, attend: Attend
    ) -> Tensor:
        """`x` `(B * F, N, D)` of a `batch` B; `m`: each frame's modulation; `turn`: see `_turn`."""
        y = _modulate(x, m, 0, self._eps).view(batch, -1, x.shape[-1])
        y = self._merge(attend(layer, *self._queries_keys_values(y, turn)).transpose(1, 2).flatten(2))
        x = _add(x, y.view_as(x), m, 2)
        return _add(x, self._narrow(self._widen(_modulate(x, m, 3, self._eps))), m, 5)

    def _queries_keys_values(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, L, D)` to three of `(B, heads, L, head_dim)`."""
        qkv = self._project(x).unflatten(-1, (3, -1))
        qk = (rms_norm(qkv[:, :, :2], self._eps) * self._gain).unflatten(-1, (self._heads, -1, 2))
        pairs = torch.view_as_complex(qk.float()).permute(2, 0, 3, 1, 4)  # (2, B, heads, L, head_dim / 2)
        q, k = torch.view_as_real(pairs * turn).flatten(-2).to(qkv.dtype).unbind()
        return q, k, qkv[:, :, 2].unflatten(-1, (self._heads, -1)).transpose(1, 2)


def fits(generator: Generator) -> bool:
    """Whether a generator is one of those that can be packed."""
    c = generator.config
    return not (c.text_dim or c.image_dim or c.action)


def _by_position(weight: Tensor) -> Tensor:
    """The weight `(D, C, 1, p, p)` of the patches' embedding as one of `(D, p * p * C)`."""
    return weight.squeeze(2).permute(0, 2, 3, 1).flatten(1)


def _scales_by_one(modulation: Tensor, scales: tuple[int, ...]) -> Tensor:
    """A learned modulation `(1, 6 or 2, D)` with 1 added to its scales."""
    modulation = modulation.detach().clone()
    modulation[:, list(scales)] += 1
    return modulation


def _turn(cos_sin: Tensor) -> Tensor:
    """A rope table `(2, …, L, head_dim)` as complex numbers of length 1, `(…, L, head_dim / 2)`."""
    return torch.complex(cos_sin[0, ..., ::2], cos_sin[1, ..., 1::2])


def _modulate(x: Tensor, m: Sequence[Modulation], at: int, eps: float) -> Tensor:
    """Layer norm of frames `x` `(B * F, N, D)`, by each one's scale, plus its shift, which stand at `at`."""
    normed = [
        F.layer_norm(frame, frame.shape[-1:], by[at + 1], by[at], eps)
        for frame, by in zip(x.split(1) if len(m) > 1 else (x,), m, strict=True)
    ]
    return torch.cat(normed) if len(m) > 1 else normed[0]


def _add(x: Tensor, y: Tensor, m: Sequence[Modulation], at: int) -> Tensor:
    """Frames `x` `(B * F, N, D)` plus `y` times each one's gate, which stands at `at`."""
    gate = torch.stack([by[at] for by in m]).unsqueeze(1) if len(m) > 1 else m[0][at]
    return torch.addcmul(x, y, gate)
