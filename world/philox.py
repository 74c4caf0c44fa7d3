"""Philox 4x64-10 (Salmon et al. 2011) in torch's integer operations: many sessions' noise, drawn on a GPU.

The words are those of `numpy.random.Philox`, bit for bit. Int64 wraps as unsigned words do; what differs,
shifts and the upper half of a product, is made of what does not.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

LOW = 0xFFFFFFFF
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
BUMPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10


def uniforms(seeds: Sequence[int], tick: Tensor, step: int, count: int) -> Tensor:
    """What noise is made of, drawn where `tick` lies, int64 `()`: float64 `(len(seeds), count)` in (0, 1]."""
    return uniforms_of(_keys(tuple(seeds), tick.device), tick, step, count)


def uniforms_of(key: Tensor, tick: Tensor, step: int, count: int) -> Tensor:
    """The same of keys that lie there already, `(2, sessions, 1)`, their lower words first.

    `tick`: `()`, or `(sessions, 1)` where each is at one of its own.
    """
    blocks, device = -(-count // 4), tick.device
    first = torch.arange(1, blocks + 1, device=device).expand(key.shape[1], -1)  # numpy counts first
    even = torch.stack([first, tick.expand_as(first)])
    odd = torch.stack([torch.full_like(first, step), torch.zeros_like(first)])
    words = _rounds(even, odd, key)[:, :count]
    return _upper(words, 11).double().mul_(2.0**-53).add_(2.0**-54)


@lru_cache(64)  # what a GPU has to be told it waits for
def _keys(seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """The words of the sessions' keys, `(2, sessions, 1)`."""
    words = [[_signed((seed >> 64 * word) % 2**64) for seed in seeds] for word in (0, 1)]
    return torch.tensor(words, device=device)[..., None]


@lru_cache
def _constants(device: torch.device) -> tuple[Tensor, ...]:
    """Lower and upper halves of the multipliers, the multipliers, the bumps of the keys, `(2, 1, 1)` each."""
    rows = [m & LOW for m in MULTIPLIERS], [m >> 32 for m in MULTIPLIERS], MULTIPLIERS, BUMPS
    return tuple(torch.tensor([_signed(word) for word in row], device=device)[:, None, None] for row in rows)


def _rounds(even: Tensor, odd: Tensor, key: Tensor) -> Tensor:
    """The words drawn, `(sessions, 4 x blocks)`; of counters, words 0 and 2 are `even`, 1 and 3 `odd`."""
    low, high, whole, bump = _constants(key.device)
    for _ in range(ROUNDS):
        below, above = even & LOW, _upper(even, 32)
        cross = (low * below).bitwise_right_shift_(32).bitwise_and_(LOW).add_(low * above)
        other = (cross & LOW).add_(high * below)
        upper = (high * above).add_(_upper(cross, 32)).add_(_upper(other, 32))
        even, odd = upper.flip(0).bitwise_xor_(odd).bitwise_xor_(key), (even * whole).flip(0)
        key = key + bump
    return torch.stack([even[0], odd[0], even[1], odd[1]], -1).flatten(1)


def _upper(x: Tensor, bits: int) -> Tensor:
    """`x` as an unsigned word, shifted to the right."""
    return (x >> bits) & ((1 << 64 - bits) - 1)


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return word - 2**64 if word >= 2**63 else word
