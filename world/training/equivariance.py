"""Scale equivariance: half as many latents each way decode to the picture at half its size.

An autoencoder that is only asked to rebuild may hide fine patterns in its latents that nothing in the picture
looks like, and a generator has to learn them. Asked for this as well, latents are laid out as the picture is
(Skorokhodov et al. 2025, arXiv 2502.14831).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Decode = Callable[[Tensor], tuple[Tensor, object]]


def halves(decode: Decode, latents: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """What halved latents decode to, and the halved picture, which it should be.

    Of `latents` `(N, T, C, h, w)` and of `clip` `(N, T, 3, H, W)`, which they are of. Each is halved to the
    mean of every two by two. Where a side of the latents is odd, its end is left out of both.
    """
    rebuilt, _ = decode(_halved(latents))
    height, width = rebuilt.shape[-2:]
    return rebuilt, _halved(clip)[..., :height, :width]


def _halved(x: Tensor) -> Tensor:
    means: Tensor = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
    return means
