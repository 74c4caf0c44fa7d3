"""Flow matching in few steps, as Self-Forcing samples.

`x_sigma = (1 - sigma) * clean + sigma * noise`, the generator predicts `flow = noise - clean`, so
`clean = x - sigma * flow`. Between steps the estimate is noised again with fresh noise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

UNIT = float(np.float32(0.001))


def warp(step: float, shift: float) -> float:
    """Sigma of a listed step (0..1000) under a timestep shift; the timestep is 1000 times that.

    Rounded to float32 where the reference's table (`linspace(1, 0, 1001)`, warped) rounds: a timestep that is
    one unit in the last place off moves the flow by up to 5e-5.
    """
    s = np.float32(UNIT * step if step <= 500 else 1 - UNIT * (1000 - step))
    return float(np.float32(shift) * s / (1 + np.float32(shift - 1) * s))


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a tick's denoise steps, highest first. The timestep of a level is 1000 * sigma."""

    sigmas: tuple[float, ...]

    @classmethod
    def from_steps(cls, steps: Sequence[float], shift: float) -> "Schedule":
        return cls(tuple(warp(step, shift) for step in steps))

    def __len__(self) -> int:
        return len(self.sigmas)


def estimates(
    predict: Callable[[Tensor, float], Tensor], noises: Sequence[Tensor], schedule: Schedule
) -> Iterator[Tensor]:
    """Runs the schedule: yields each step's estimate of the clean latents, the last being the result.

    `predict(x, timestep)` returns the flow; `noises` holds one draw a step, float32. No gradient passes from
    one step to the next.
    """
    sigma = schedule.sigmas[0]
    x = noises[0]
    clean = x - sigma * predict(x, 1000 * sigma)
    yield clean
    for sigma, fresh in zip(schedule.sigmas[1:], noises[1:], strict=True):
        x = (1 - sigma) * clean.detach() + sigma * fresh
        clean = x - sigma * predict(x, 1000 * sigma)
        yield clean


def denoise(
    predict: Callable[[Tensor, float], Tensor], noises: Sequence[Tensor], schedule: Schedule
) -> Tensor:
    """The last of the `estimates`."""
    *_, clean = estimates(predict, noises, schedule)
    return clean
