"""A KV cache in fp8: every token's keys and values of a head in 8 bits, with one scale each.

A frame takes a little more than half the memory of bfloat16. Attention reads the 8-bit numbers as they are:
scores and weights are multiplied by the scales, and no widened copy is made. A GPU does that by a Triton
kernel (`world.low_bit_cache_kernels`), once it was seen to agree with the twin, which widens and serves
everywhere else. The kernel rounds queries and weights to fp8 too where that is faster: as far from the twin
again as the twin is from a full cache.
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
from playhead.world.kv_cache import KVCache
from playhead.world.low_bit import quantise_fast
from playhead.world.rounding import EIGHT_BIT, quantise
from playhead.world.timing import seconds

CACHES = ("fp8",)
"""What `--cache` may say."""
SCALE_BYTES = 4
"""Of a token's keys, or values, of one head."""
LIMITS = {False: 0.01, True: 0.05}
"""Relative L1 error against the twin up to which a kernel is right: without and with fp8 products."""
ROOM = 128
"""Of so many tokens a cache that a kernel reads holds a multiple: the last tile of keys is read whole."""
Tile = tuple[int, int, int, int, int, bool]
"""Queries and keys that a program takes at once, warps, stages, in how many parts the keys are, and whether
products are in fp8."""
TILES: tuple[Tile, ...] = tuple(
    (queries, keys, warps, stages, parts, products)
    for queries, keys, warps, stages, products in (
        (128, 64, 8, 3, True),
        (64, 64, 4, 3, True),
        (64, 32, 4, 4, True),
        (128, 64, 8, 3, False),
        (64, 64, 4, 3, False),
    )
    for parts in (1, 2, 4)
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

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, k_scale: Tensor, v_scale: Tensor) -> Tensor:
        """Attention of `(B, heads, queries, head_dim)` to fp8 `k`, `v` with scales `(B, heads, keys)`."""
        if self.tile is None:
            return twin(q, k, v, k_scale, v_scale)
        from playhead.world.low_bit_cache_kernels import read_fp8

        return read_fp8(q, k, v, k_scale, v_scale, *self.tile)

    def put(self, x: Tensor, held: Tensor, scales: Tensor) -> None:
        """Rounds `(B, heads, tokens, head_dim)` into a part of the cache and of its scales."""
        if self.tile is not None:
            from playhead.world.low_bit_cache_kernels import put_fp8

            return put_fp8(x, held, scales)
        rounded, scale = quantise_fast(x.reshape(-1, x.shape[-1]), "fp8")
        held.copy_(rounded.view(x.shape))
        scales.copy_(scale.view(x.shape[:-1]))

    def lay(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places of zeros for keys and values `(..., tokens, head_dim)`, and for the scales of each.

        The kernel wants values by column, and room behind the last token.
        """
        *rest, tokens, size = shape
        room = tokens if self.tile is None else -(-tokens // ROOM) * ROOM
        k = torch.zeros((*rest, room, size), dtype=dtype, device=device)
        if self.tile is None:
            v = torch.zeros_like(k)
        else:
            v = torch.zeros((*rest, size, room), dtype=dtype, device=device).transpose(-1, -2)
        k_scale, v_scale = (torch.zeros((*rest, room), device=device) for _ in range(2))
        return k[..., :tokens, :], v[..., :tokens, :], k_scale[..., :tokens], v_scale[..., :tokens]


def twin(q: Tensor, k: Tensor, v: Tensor, k_scale: Tensor, v_scale: Tensor) -> Tensor:
    """The same as any device computes it, over widened keys and values."""
    return attention(q, widen(k, k_scale, q.dtype), widen(v, v_scale, q.dtype))


def widen(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (x.float() * scale.unsqueeze(-1)).to(dtype)


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
    found = [_measure(before.tile, given)] if before is not None and before.tile in TILES else []
    if before is not None and any(taken is not None for _, taken, _ in found):
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, and keys and values as such a cache holds them; keys have a mean, as in play."""
    heads, queries, keys, size = shapes(config, tokens, shares)
    draw = torch.Generator(device).manual_seed(0)
    q = torch.randn((1, heads, queries, size), generator=draw, device=device).to(dtype)
    k, v, k_scale, v_scale = CacheReader(TILES[0]).lay((1, heads, keys, size), EIGHT_BIT["fp8"], device)
    for held, scales, mean in ((k, k_scale, 0.5), (v, v_scale, 0.0)):
        x = torch.randn((1, heads, keys, size), generator=draw, device=device).add_(mean).to(dtype)
        rounded, scale = quantise(x, "fp8")
        held.copy_(rounded)
        scales.copy_(scale.squeeze(-1))
    return q, k, v, k_scale, v_scale


def _measure(
    tile: Tile, given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tile, float | None, str]:
    """Seconds of a read by a kernel, None where it is wrong or cannot be used, and what was found."""
    reader, q = CacheReader(tile), given[0]
    few = [q[:, :, :256], *given[1:]]
    try:
        found, wanted = reader(*few).float(), twin(*few).float()
        error = float((found - wanted).abs().sum() / wanted.abs().sum())
        if not error <= LIMITS[tile[5]]:
            return tile, None, f"its kernel is wrong: relative L1 error {error:.4f}"
        taken = seconds(lambda: reader(*given), q.device)
    except Exception as problem:  # Triton and its compiler raise whatever they like
        return (
            tile,
            None,
            f"its kernel fails ({next(iter(str(problem).splitlines()), type(problem).__name__)})",
        )
    return tile, taken, f"relative L1 error {error:.4f} from the twin"


def _key(config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int) -> str:
    sizes = "x".join(map(str, shapes(config, tokens, shares)))
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {dtype}, {sizes}"


class LowBitCache(KVCache):
    """A `KVCache` whose `k` and `v` are fp8, with scales float32 `(layers, B, heads, frames * tokens)`.

    What comes is rounded when it is put; the sink's unmoved copy is what was left of it, in full.
    """

    def __init__(self, *, reader: CacheReader, **sizes: Any) -> None:  # noqa: ANN401 - as KVCache has them
        self._reader = reader
        super().__init__(**sizes, stored=EIGHT_BIT["fp8"])
        self._dtype = self.sink_base.dtype

    def _place(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self.k, self.v, self.k_scale, self.v_scale = self._reader.lay(shape, dtype, device)

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        n = self.tokens
        for values, held, scales in ((k, self.k, self.k_scale), (v, self.v, self.v_scale)):
            for i, slot in enumerate(self.slots):
                here, there = slice(i * n, (i + 1) * n), slice(slot * n, (slot + 1) * n)
                self._reader.put(values[:, :, here], held[layer, :, :, there], scales[layer, :, :, there])

    def own(self, layer: int) -> None:
        """There is no place for keys and values in full."""

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values that a layer reads, widened: for whoever is not the reader."""
        k, v = super().held(layer)
        end = k.shape[2]
        return (
            widen(k, self.k_scale[layer, :, :, :end], self._dtype),
            widen(v, self.v_scale[layer, :, :, :end], self._dtype),
        )

    def read(self, layer: int, q: Tensor) -> Tensor:
        if self._fills and self.far is not None and layer in self.far.layers:
            return attention(q, *self._whole(layer), self._held)  # under a mask, which no kernel here knows
        k, v = super().held(layer)
        end = k.shape[2]
        return self._reader(q, k, v, self.k_scale[layer, :, :, :end], self.v_scale[layer, :, :, :end])

    def _whole(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, widened."""
        return (
            widen(self.k[layer], self.k_scale[layer], self._dtype),
            widen(self.v[layer], self.v_scale[layer], self._dtype),
        )

    def _stored(self) -> tuple[Tensor, ...]:
        return self.k, self.v, self.k_scale, self.v_scale

    def _set_sink(self, keys: Tensor) -> None:
        rounded, scale = quantise_fast(keys.reshape(-1, self.head_dim), "fp8")
        end = self.sink * self.tokens
        self.k[..., :end, :] = rounded.view(keys.shape)
        self.k_scale[..., :end] = scale.view(keys.shape[:-1])

    def _keys(self, first: int, last: int) -> Tensor:
        return widen(self.k[..., first:last, :], self.k_scale[..., first:last], self._dtype)

    def ordered(self, layer: int) -> tuple[Tensor, Tensor]:
        index = self._ordered_tokens()
        k, v = self._whole(layer)
        return k.index_select(2, index), v.index_select(2, index)

    def _far_scales(self) -> list[Tensor]:
        """Those of what the far ring holds."""
        assert self.far is not None
        part = slice(self.frames * self.tokens, (self.frames + self.distant) * self.tokens)
        return [held[layer, :, :, part] for layer in self.far.layers for held in (self.k_scale, self.v_scale)]

    def state(self) -> dict[str, Tensor | int]:
        found = super().state()
        held = found["k"]
        assert isinstance(held, Tensor)
        end = held.shape[3]
        scales = {"k_scale": self.k_scale[..., :end].clone(), "v_scale": self.v_scale[..., :end].clone()}
        far = {"far_scales": torch.stack(self._far_scales())} if self.far is not None else {}
        return {**found, **scales, **far}

    def load_state(self, state: dict[str, Tensor | int]) -> None:
        super().load_state(state)
        k_scale, v_scale = state["k_scale"], state["v_scale"]
        assert isinstance(k_scale, Tensor) and isinstance(v_scale, Tensor)
        self.k_scale[..., : k_scale.shape[3]] = k_scale
        self.v_scale[..., : v_scale.shape[3]] = v_scale
        if self.far is not None:
            far = state["far_scales"]
            assert isinstance(far, Tensor)
            for mine, kept in zip(self._far_scales(), far, strict=True):
                mine.copy_(kept)
