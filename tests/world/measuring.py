"""What evaluation is tried on: clips of which every measure is known beforehand."""

from typing import Any

import torch

from playhead.world.evaluation import CONTEXT, HORIZONS, Clip, Evaluation
from tests.world.game import film

LENGTH = CONTEXT + max(HORIZONS)


def run(measured: Evaluation, ticks: int, **options: Any) -> None:
    for _ in measured.each_tick(ticks, **options):
        pass


def counting_clip(place: str = "count") -> Clip:
    """Frame t is flat grey of level 3 t, and action t holds the buttons of t in binary."""
    levels = 3 * torch.arange(LENGTH, dtype=torch.uint8)
    bits = torch.arange(LENGTH)[:, None] >> torch.arange(8) & 1
    return Clip(levels[:, None, None, None].expand(-1, 64, 64, 3), bits.to(torch.uint8), place)


def wall_clip(seed: int, place: str = "wall") -> Clip:
    frames, actions = film(LENGTH, seed)
    return Clip(torch.from_numpy(frames), torch.from_numpy(actions), place)
