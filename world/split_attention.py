"""Attention with the keys in parts, for a few queries that read many keys on a large GPU.

A kernel gives each tile of queries a multiprocessor. One frame at 480 x 832 makes 156 tiles of 12 heads for
an H200's 132 multiprocessors: the second round leaves most of them idle. With the keys cut into parts, which
stand in the batch dimension (a view, no copy), there are as many times more tiles; what each part found is
merged by the logarithms of its sums of weights. As in flash decoding (Dao et al. 2023).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.fused.ops import merge_parts
from playhead.world.installed_attention import installed_sums, require

PARTS = {f"split{parts}": parts for parts in (2, 3, 4, 6, 8)}
"""How many parts, by the name of the backend."""

FLASH_PARTS = {f"flash4-{name}": parts for name, parts in PARTS.items()}
"""Those that FlashAttention 4 reads, where that is installed: on some GPUs it has no such way of its own."""

TILE = 128
"""Queries that a program reads for."""
MERGING = 0.02
"""What one part more takes to merge, of the time of a round of programs that read all keys."""


def likely_parts(queries: int, heads: int, multiprocessors: int) -> tuple[int, ...]:
    """The three numbers of parts that should take the least time, the better first.

    A GPU runs a program a multiprocessor at a time, and its last round is as long as a full one: more and
    shorter programs leave less of it idle. The fastest that was measured on an H200 is among them.
    """
    programs = -(-queries // TILE) * heads

    def rounds(parts: int) -> float:
        return -(-programs * parts // multiprocessors) / parts + MERGING * parts

    return tuple(sorted(PARTS.values(), key=rounds)[:3])


def split_attention(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """Softmax attention `(B, heads, queries, head_dim)` over keys in as many parts as `backend` says.

    Sessions that share a pass make tiles enough, and keys that cannot be cut evenly are read in one piece.
    Raises RuntimeError where no kernel here tells its sums.
    """
    batch, heads, queries, _ = q.shape
    parts, attend = PARTS.get(backend, 0), attend_with_sums
    if not parts:
        parts, attend = FLASH_PARTS[backend], installed_sums
        require("flash4")  # also where it will not be asked: else it would be taken for right without it
    if batch > 1 or k.shape[2] % parts:
        return F.scaled_dot_product_attention(q, k, v)
    k, v = (x.unflatten(2, (parts, -1)).squeeze(0).transpose(0, 1) for x in (k, v))
    found, sums = attend(q.expand(parts, -1, -1, -1), k, v)
    return merge_parts(found, sums.reshape(parts, heads, queries).float())


def attend_with_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What queries read, and the logarithm of the sum of their weights, by the device's own kernel.

    Raises RuntimeError where no kernel here tells its sums.
    """
    kernels = torch.ops.aten
    if q.device.type == "cuda":
        found = kernels._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    elif q.device.type == "cpu":
        found = kernels._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    else:
        raise RuntimeError(f"no kernel of {q.device.type} tells its sums of weights")
    return found[0], found[1]
