"""A KV cache in fp8: keys and values in 8 bits, half the memory of bfloat16.

They are what they are, without a scale: fp8 (e4m3) is as exact from 0.016 to 448, and goes on to 0.002 in
steps of that. What is beyond is cut off. Attention reads the 8-bit numbers as they are, and no widened copy
is made. A GPU does that by a Triton kernel (`world.low_bit_cache_kernels`), once it was seen to agree with
the twin, which widens and serves everywhere else. The kernel rounds queries and weights to fp8 too where
that is faster: as far from the twin again as the twin is from a full cache.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playhead.world import remembered
from playhead.world.attention import attention
from playhead.world.attention_check import shapes
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.kv_cache import CacheState, KVCache
from playhead.world.rounding import EIGHT_BIT, TOPS
from playhead.world.timing import seconds

CACHES = ("fp8",)
"""What `--cache` may say."""
LIMITS = {False: 0.01, True: 0.05}
"""Relative L1 error against the twin up to which a kernel is right: without and with fp8 products."""
KERNELS = 2
"""Counted up when the kernels change, of which what is remembered is to be found anew."""
ROOM = 128
"""Of so many tokens a cache that a kernel reads holds a multiple: the last tile of keys is read whole."""
Tile = tuple[int, int, int, int, int, bool]
"""Queries and keys that a program takes at once, warps, stages, in how many parts the keys are, and whether
products are in fp8."""
TILES: tuple[Tile, ...] = tuple(
    (queries, keys, warps, stages, parts, products)
    for queries, keys, warps, stages, products in (
        (64, 128, 4, 3, True),
        (128, 128, 8, 3, True),
        (64, 64, 4, 3, True),
        (64, 64, 4, 3, False),
    )
    for parts in (1, 2, 4, 8)
)


@dataclass(frozen=True)
class CacheReader:
    """How such a cache is read: by a kernel of that `tile`, or by the twin. `finding`: why, in a sentence."""

    tile: Tile | None = None
    finding: str = ""

    def __str__(self) -> str:
        """`, in tiles of 128 x 64, 2 parts, fp8 products`, on which bits hang; nothing of the twin."""
        if self.tile is None:
            return ""
        products = ", fp8 products" if self.tile[5] else ""
        return f", in tiles of {self.tile[0]} x {self.tile[1]}, {self.tile[4]} parts{products}"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of `(B, heads, queries, head_dim)` to fp8 `k` and `v`."""
        if self.tile is None:
            return twin(q, k, v)
        from playhead.world.low_bit_cache_kernels import read_fp8

        return read_fp8(q, k, v, *self.tile)

    def put(self, x: Tensor, held: Tensor) -> None:
        """Rounds `(B, heads, tokens, head_dim)` into a part of the cache."""
        if self.tile is None:
            held.copy_(rounded(x, held.dtype))
            return
        from playhead.world.low_bit_cache_kernels import put_fp8

        put_fp8(x, held)

    def lay(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> tuple[Tensor, Tensor]:
        """Places of zeros for keys and values `(..., tokens, head_dim)`.

        The kernel wants values by column, and room behind the last token.
        """
        *rest, tokens, size = shape
        if self.tile is None:
            k, v = (torch.zeros((*rest, tokens, size), dtype=dtype, device=device) for _ in range(2))
            return k, v
        room = -(-tokens // ROOM) * ROOM
        k = torch.zeros((*rest, room, size), dtype=dtype, device=device)
        v = torch.zeros((*rest, size, room), dtype=dtype, device=device).transpose(-1, -2)
        return k[..., :tokens, :], v[..., :tokens, :]


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in fp8, what is beyond its range at its end."""
    top = TOPS["fp8"]
    return x.clamp(-top, top).to(dtype)


def twin(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as any device computes it, over widened keys and values."""
    return attention(q, k.to(q.dtype), v.to(q.dtype))


def check_cache(cache: str | None, attention: str | None = None) -> None:
    """Raises WorldError for a kind of cache that there is not; None can always be had."""
    if cache is None:
        return
    if cache not in CACHES:
        raise WorldError(
            f"there is no cache `{cache[:40]}`; there is {' and '.join(CACHES)}, or leave it out"
        )
    if attention is not None:
        raise WorldError(f"--cache {cache} is read by a kernel of its own; leave out --attention {attention}")


def choose_reader(
    config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int = 1
) -> CacheReader:
    """The fastest kernel that agrees with the twin at a world's shapes on a device, or the twin.

    What was found is remembered in the user's folder, and compared again. `shares`: on how many devices the
    world's heads are, a part on each.
    """
    if device.type != "cuda":
        return CacheReader(None, f"there is a kernel for NVIDIA GPUs alone, and this is {device.type}")
    given = _draw(config, tokens, device, dtype, shares)
    key = _key(config, tokens, device, dtype, shares)
    memory = remembered.note("cache.json")
    known = remembered.read(memory, CacheReader)
    before = known.get(key)
    if before is not None and before.tile in TILES and _measure(before.tile, given, False)[1] is not None:
        return before
    found = [_measure(tile, given) for tile in TILES]
    torch.cuda.empty_cache()
    right = [one for one in found if one[1] is not None]
    if not right:
        said = f"an fp8 cache is widened in every read, which is slower than without: {found[0][2]}"
        logging.getLogger("playhead").warning(said)
        return CacheReader(None, found[0][2])
    tile, taken, said = min(right, key=lambda one: one[1] or 0.0)
    reader = CacheReader(tile, f"{said}, {1000 * (taken or 0.0):.2f} ms in tiles of {tile}")
    remembered.write(memory, {**known, key: reader})
    return reader


def _draw(
    config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, and keys and values as such a cache holds them; keys have a mean, as in play."""
    heads, queries, keys, size = shapes(config, tokens, shares)
    draw = torch.Generator(device).manual_seed(0)
    q = torch.randn((1, heads, queries, size), generator=draw, device=device).to(dtype)
    k, v = CacheReader(TILES[0]).lay((1, heads, keys, size), EIGHT_BIT["fp8"], device)
    for held, mean in ((k, 0.5), (v, 0.0)):
        x = torch.randn((1, heads, keys, size), generator=draw, device=device).add_(mean)
        held.copy_(rounded(x, held.dtype))
    return q, k, v


def _measure(
    tile: Tile, given: tuple[Tensor, Tensor, Tensor], timed: bool = True
) -> tuple[Tile, float | None, str]:
    """Seconds of a read by a kernel, 0 if it is not to be `timed`, and what was found.

    None where it is wrong or cannot be used.
    """
    reader, q = CacheReader(tile), given[0]
    few = [q[:, :, :256], *given[1:]]
    try:
        found, wanted = reader(*few).float(), twin(*few).float()
        error = float((found - wanted).abs().sum() / wanted.abs().sum())
        if not error <= LIMITS[tile[5]]:
            return tile, None, f"its kernel is wrong: relative L1 error {error:.4f}"
        taken = seconds(lambda: reader(*given), q.device) if timed else 0.0
    except Exception as problem:  # Triton and its compiler raise whatever they like
        return (
            tile,
            None,
            f"its kernel fails ({next(iter(str(problem).splitlines()), type(problem).__name__)})",
        )
    return tile, taken, f"relative L1 error {error:.4f} from the twin"


def _key(config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int) -> str:
    sizes = "x".join(map(str, shapes(config, tokens, shares)))
    name = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, kernels {KERNELS}"
    return f"{name}, {dtype}, {sizes}"


class LowBitCache(KVCache):
    """A `KVCache` whose `k` and `v` are fp8.

    What comes is rounded when it is put; the sink's unmoved copy is what was left of it, in full.
    """

    def __init__(self, *, reader: CacheReader, **sizes: Any) -> None:  # noqa: ANN401 - as KVCache has them
        self._reader = reader
        super().__init__(**sizes, stored=EIGHT_BIT["fp8"])
        self._dtype = self.sink_base.dtype

    def _place(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self.k, self.v = self._reader.lay(shape, dtype, device)

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        n = self.tokens
        for values, held in ((k, self.k), (v, self.v)):
            for i, slot in enumerate(self.slots):
                here, there = slice(i * n, (i + 1) * n), slice(slot * n, (slot + 1) * n)
                self._reader.put(values[:, :, here], held[layer, :, :, there])

    def own(self, layer: int) -> None:
        """There is no place for keys and values in full."""

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values that a layer reads, widened: for whoever is not the reader."""
        k, v = super().held(layer)
        return k.to(self._dtype), v.to(self._dtype)

    def read(self, layer: int, q: Tensor) -> Tensor:
        if self._fills and self.far is not None and layer in self.far.layers:
            return attention(q, *self._whole(layer), self._held)  # under a mask, which no kernel here knows
        return self._reader(q, *super().held(layer))

    def _whole(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, widened; a spare slot lies behind them."""
        end = self._held.shape[1]
        return self.k[layer][:, :, :end].to(self._dtype), self.v[layer][:, :, :end].to(self._dtype)

    def load_state(self, state: CacheState) -> None:
        if "k_scale" in state:
            raise WorldError(
                "this snapshot has an fp8 cache with scales, as it was once kept; make a new one"
            )
        super().load_state(state)

    def _set_sink(self, keys: Tensor, layers: slice = slice(None)) -> None:
        super()._set_sink(rounded(keys, self.k.dtype), layers)

    def _keys(self, first: int, last: int) -> Tensor:
        return self.k[..., first:last, :].to(self._dtype)

    def ordered(self, layer: int) -> tuple[Tensor, Tensor]:
        index = self._ordered_tokens()
        k, v = self._whole(layer)
        return k.index_select(2, index), v.index_select(2, index)
