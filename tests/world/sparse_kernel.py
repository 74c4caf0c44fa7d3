"""Sparse attention by its Triton kernel and by its twin, in Triton's interpreter: prints JSON.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.sparse_kernel`, since Triton asks when it is
imported. The largest difference of each backend over random windows.
"""

import json
import random

import torch

from playhead.world import sparse_attention, sparse_kernels
from playhead.world.sparse_attention import SPARSE
from playhead.world.sparse_rules import FAR, HeldSlots

CASES = 8


def window(draw: random.Random) -> HeldSlots:
    """A ring that has turned; once its frames are of more than four whole tiles, with a rest."""
    own, past, far = draw.randint(1, 2), draw.randint(0, 4), draw.randint(0, 2)
    ring = own + past
    turned = draw.randrange(ring)
    places = [(slot - turned) % ring for slot in range(ring)]
    slots = tuple(places.index(place) for place in range(past, ring))
    tokens = draw.choice([1, 4, 6, 40, 70, 530])
    return HeldSlots(tokens, (*places, *[FAR] * far), slots, ring + far)


def difference(draw: random.Random, backend: str) -> float:
    """Of keys and values that are views of a longer cache, the rest of which is no number."""
    seen = window(draw)
    batch, heads, size = draw.randint(1, 2), draw.randint(1, 2), draw.choice([12, 16, 24])
    keys = len(seen.places) * seen.tokens
    q = torch.randn(batch, len(seen.own) * seen.tokens, heads, size).transpose(1, 2)
    cache = torch.randn(2, batch, heads, keys + 9, size)
    cache[:, :, :, keys:] = torch.nan
    k, v = cache[..., :keys, :].unbind()
    parts = draw.randint(1, 4)
    sparse_kernels.parts_for = lambda *_: parts
    found = []
    for sparse_attention.INTERPRETED in (False, True):
        found.append(sparse_attention.sparse_attention(q, k, v, backend, seen))
    assert found[1].shape == q.shape and found[1].dtype == q.dtype
    return float((found[0] - found[1]).abs().max())


if __name__ == "__main__":
    torch.manual_seed(0)
    errors = {}
    for backend in SPARSE:
        draw = random.Random(backend)
        errors[backend] = max(difference(draw, backend) for _ in range(CASES))
    print(json.dumps(errors))
