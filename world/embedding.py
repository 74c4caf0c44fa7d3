"""What is embedded for a generator beside its latents: noise levels, buttons and the features of a picture.

Shapes: B sessions, F latent frames, D model width.
"""

import torch
from torch import Tensor, nn


class ButtonEmbedding(nn.Sequential):
    """Action injection by modulation: a multi-hot action and a label `(B, F, told)` to `(B, F, D)`.

    It is added to the embedding of the noise level, which modulates every block.
    """

    def __init__(self, told: int, dim: int) -> None:
        super().__init__(nn.Linear(told, dim), nn.SiLU(), nn.Linear(dim, dim))


class ImageEmbedding(nn.Module):
    """Image features `(B, rows, image_dim)` to a cross-attention context `(B, rows, D)`."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.proj(features)
        return found


def sinusoid(timesteps: Tensor, features: int) -> Tensor:
    """Cosines, then sines, of `t * 10000^(-i / half)`: `(…)` to `(…, features)`, computed in float64."""
    half = features // 2
    exponents = torch.arange(half, dtype=torch.float64, device=timesteps.device) / -half
    angles = timesteps.double().unsqueeze(-1) * 10000.0**exponents
    return torch.cat([angles.cos(), angles.sin()], -1)
