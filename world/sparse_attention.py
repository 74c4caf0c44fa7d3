"""Sparse attention over the rolling cache: a part of the keys, chosen by a rule (`world.sparse_rules`).

For windows of many frames, and for whoever asks: frames differ from dense ones, so none is taken by itself.
On a GPU a Triton kernel reads the tiles that the rule names and no others; elsewhere its twin, dense
attention under the rule's mask, which saves nothing.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.sparse_rules import HeldSlots, Tiles, hierarchical, radial, tile_numbers, tiles_of

try:
    from playhead.world import sparse_kernels as _loaded

    _kernels: ModuleType | None = _loaded
except ImportError:  # torch for a CPU comes without Triton
    _kernels = None

SPARSE_KERNELS = 2
"""Counted up when the kernel sums in another order: a recording names it."""
INTERPRETED = False
"""Whether the kernel serves tensors of a CPU too: in a process with TRITON_INTERPRET=1, for its tests."""

FRACTIONS = {f"hierarchical{percent}": percent / 100 for percent in (25, 50, 75)}
"""What part of the past it reads, by the name of the backend."""

SPARSE = ("radial", *FRACTIONS)
"""The backends, which a `KVCache` knows: a rule has to know what stands in its slots."""


def sparse_attention(q: Tensor, k: Tensor, v: Tensor, backend: str, held: HeldSlots) -> Tensor:
    """Softmax attention `(B, heads, queries, head_dim)` of the block under way to what its rule names.

    Writes to none of its inputs. Raises RuntimeError on a GPU without Triton.
    """
    tiles = choose_tiles(q, k, backend, held)
    if _kernels is not None and (q.is_cuda or INTERPRETED):
        found: Tensor = _kernels.attend(q, k, v, tiles, held.tokens)
        return found
    if q.is_cuda:
        raise RuntimeError("sparse attention needs Triton on a GPU")
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask(tiles, held, q.shape[2]))


def choose_tiles(q: Tensor, k: Tensor, backend: str, held: HeldSlots) -> Tiles:
    """The tiles of keys that each tile of queries reads, on their device."""
    if backend in FRACTIONS:
        return hierarchical(q, k, held, FRACTIONS[backend])
    return radial(held, q.device)


def mask(tiles: Tiles, held: HeldSlots, queries: int) -> Tensor:
    """What the first so many queries read, bool `(B or 1, heads or 1, queries, keys)`."""
    device, n = tiles.numbers.device, len(held.places) * tiles_of(held.tokens)
    meant = torch.arange(tiles.numbers.shape[-1], device=device) < tiles.counts[..., None]
    seen = torch.zeros((*tiles.counts.shape, n + 1), dtype=torch.bool, device=device)
    seen.scatter_(-1, tiles.numbers.long().where(meant, n), True)  # what is not meant falls off the end
    rows = tile_numbers(held.tokens, queries, device)
    columns = tile_numbers(held.tokens, len(held.places) * held.tokens, device)
    return seen[..., rows, :][..., columns]
