"""Random prefixes of channels: the first channels alone have to say most of the picture.

Asked to rebuild from the first few of its channels now and then, an autoencoder puts what matters most there
and fine detail behind, which is an order that a generator can learn in (DC-AE 1.5, Chen et al. 2025,
arXiv 2508.00413).
"""

import torch
from torch import Tensor

LEAST = 8
"""Of so many channels one stays at the least, rounded down; one in any case."""


def prefixes(clips: int, channels: int, share: float, draw: torch.Generator) -> Tensor:
    """Masks `(clips, 1, channels, 1, 1)`, float32, of 1 for the channels that stay and 0 for the others.

    A clip is masked with the chance `share`. Then of its channels the first few stay, any number of them.
    """
    masked = torch.rand(clips, generator=draw) < share
    few = torch.randint(max(1, channels // LEAST), channels, (clips,), generator=draw)
    stay = torch.where(masked, few, channels)
    return (torch.arange(channels) < stay[:, None]).float()[:, None, :, None, None]
