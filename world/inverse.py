"""The inverse-dynamics model: which buttons were held, judged from the pictures alone.

It sees four frames around a tick and is trained on real footage; on dreamed footage its score then says how
well the dream obeys its keys (as MineWorld and GameWorld Score measure action following).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BEFORE, AFTER = 1, 2
"""Frames seen before frame t and after it; action t is held from frame t to frame t + 1."""


class InverseDynamics(nn.Module):
    """Frames `(N, 4, 3, H, W)` in [0, 1], at t - 1 .. t + 2, to logits `(N, buttons)` of action t."""

    def __init__(self, buttons: int) -> None:
        super().__init__()
        widths = (3 * (BEFORE + 1 + AFTER), 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 5 if n_in < 32 else 3, stride=2, padding=2 if n_in < 32 else 1)]
            layers += [nn.GroupNorm(8, n_out), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(128 * 2 * 3, buttons)

    def features(self, frames: Tensor) -> Tensor:
        """`(N, 768)`: what the trunk sees, averaged over a 2 x 3 grid of the picture."""
        small = F.avg_pool2d(frames.flatten(1, 2), 2)
        return F.adaptive_avg_pool2d(self.trunk(small), (2, 3)).flatten(1)

    def forward(self, frames: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(frames))
        return found


@torch.no_grad()
def held_buttons(model: InverseDynamics, frames: Tensor) -> Tensor:
    """Bool `(T - 3, buttons)`: the buttons held at frames 1 .. T - 3 of a clip uint8 `(T, H, W, 3)`."""
    return torch.cat([model(part) > 0 for part in _windows(frames)])


@torch.no_grad()
def clip_features(model: InverseDynamics, frames: Tensor) -> Tensor:
    """What the model's trunk sees at frames 1 .. T - 3 of a clip uint8 `(T, H, W, 3)`: `(T - 3, 768)`."""
    return torch.cat([model.features(part) for part in _windows(frames)])


def _windows(frames: Tensor) -> tuple[Tensor, ...]:
    pixels = frames.movedim(-1, -3).float() / 255
    parts: tuple[Tensor, ...] = pixels.unfold(0, BEFORE + 1 + AFTER, 1).movedim(-1, 1).split(64)
    return parts


def f1(predicted: Tensor, held: Tensor) -> Tensor:
    """F1 score of each button `(buttons)`; NaN for a button that was neither held nor predicted."""
    both = (predicted & held).sum(0).float()
    return 2 * both / (predicted.sum(0) + held.sum(0))
