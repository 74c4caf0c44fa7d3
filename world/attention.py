"""Attention behind one function, and the two ways a generator's tokens find their keys.

An `Attend` gets one layer's queries, keys and values, `(B, heads, tokens, head_dim)`, rotated already, and
returns what the queries read. Playing uses `KVCache.attend`; training a whole sequence uses a mask.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention at scale 1 / sqrt(head_dim); writes to none of its inputs."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
