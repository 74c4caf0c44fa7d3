"""Where dreams began: what a judge is shown of it at the front of a window.

A window of two dozen latents says nothing of the place that a dream set out from, so a judge of windows alone
lets one place turn into another, slowly enough. So the first latents of a window can be those that the dream
began with, clean; in a window of footage, those that lie as far back in its episode.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from playhead.world.errors import PlayheadError
from playhead.world.training.footage import Footage


@dataclass(frozen=True)
class Origins:
    """Where windows of `footage` began: `count` latents. The first `past` of a window are its past."""

    footage: Footage
    count: int
    past: int

    def index(self, starts: Tensor, age: Tensor | int) -> Tensor:
        """Frame indices `(B, count)` of what lies `age` ticks before the end of the past of each window.

        The windows begin at `starts` `(B)`, on the CPU as the result is. An episode has nothing before its
        first frame: it is its first ones then.
        """
        episodes = self.footage.episodes(starts)
        first = starts + self.past - self.count - age
        first = torch.maximum(first, torch.tensor(self.footage.starts)[episodes])
        return first[:, None] + torch.arange(self.count)


def with_origin(latents: Tensor, actions: Tensor, origin: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """Windows `(B, F, C, h, w)` and their actions `(B, F, told)`, as a judge is shown them.

    `origin` `(B, N, C, h, w)` takes the place of their first N latents. No button led to those: the first
    `inputs` of what is told there are 0, and the label stays.
    """
    count = origin.shape[1]
    if not count:
        return latents, actions
    actions = actions.clone()
    actions[:, :count, :inputs] = 0
    return torch.cat([origin, latents[:, count:]], 1), actions


def check_origin(count: int, past: int) -> None:
    """Raises PlayheadError where an origin of `count` latents does not fit into a past of `past`."""
    if not 0 <= count <= past:
        raise PlayheadError(
            f"an origin of {count} latents does not fit into the past of a window, which has {past}; "
            f"give --origin 0 to {past}"
        )
