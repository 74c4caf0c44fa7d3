"""Validation while a generator trains: fixed contexts, dreamed on by the averaged weights.

They are of episodes that are held back from training (`Footage.hold_back`), where there are enough: what
training has seen a hundred times it knows by heart, and is measured too well on it. The contexts are the same
throughout a run and its resumptions, and the noise is too, so that the figures of two moments differ by the
weights alone. Nothing here touches what training draws.
"""

import time

import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.config import SamplingConfig
from playhead.world.errors import PlayheadError
from playhead.world.experts import Experts
from playhead.world.sampler import Schedule
from playhead.world.training.footage import Footage
from playhead.world.training.self_rollout import SelfRollout, make_player

CLIPS, PAST = 32, 8
HORIZONS = (1, 8, 16, 32)
EVERY = 60.0  # seconds of a run between two validations, at least
SHARE = 0.05  # of a run's time that validations take, at most


class Validation:
    """`CLIPS` clips of footage, for models shaped like `model`. `led`: what each of its frames was told.

    Shorter clips than the longest horizon are measured as far as they go.
    """

    def __init__(
        self,
        model: Experts,
        sampling: SamplingConfig,
        latents: Tensor,
        led: Tensor,
        footage: Footage,
        device: torch.device,
    ) -> None:
        aside = bool(footage.held_back)
        room = footage.longest(aside) - 1
        if room < 2:
            raise PlayheadError("no episode is long enough to validate on; collect longer ones")
        self.past = min(PAST, room - 1)
        self.ticks = min(max(HORIZONS), room - self.past)
        pick = torch.Generator().manual_seed(2**31)
        clips = footage.clip_index(CLIPS, self.past + self.ticks, pick, aside).to(device)
        self.truth, self.actions = latents[clips].float(), led[clips]
        schedule = Schedule.from_steps(sampling.steps, sampling.shift)
        self.model = model.twin()
        player = make_player(self.model, acceleration.pick_dtype(device))
        _, channels, height, width = latents.shape
        self.rollout = SelfRollout(player, sampling, schedule, CLIPS, (channels, height, width))
        draw = torch.Generator(device).manual_seed(2**31)
        shape = (self.ticks, len(schedule), CLIPS, 1, *latents.shape[1:])
        self.noises = torch.randn(shape, generator=draw, device=device)
        self.before = torch.randn((self.past, *shape[2:]), generator=draw, device=device)
        self.exits = torch.full((CLIPS, self.ticks), len(schedule), device=device)
        self._due = 0.0

    def is_due(self, seconds: float) -> bool:
        """Whether a run that has trained for `seconds` is measured again: each minute, if that is quick."""
        due = seconds >= self._due
        if due:
            self._due = seconds + EVERY
        return due

    def measure(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """`valid_N`: mean squared error of the latents N ticks on, against what really followed.

        `valid_detail`: the fine detail of the last tick, as a part of the truth's: the mean difference of
        neighbouring positions.
        """
        began = time.monotonic()
        self.model.load_state_dict(weights)
        self.rollout.follow(self.model)
        self.rollout.begin(self.truth[:, : self.past], self.actions[:, : self.past], self.before)
        dreamed = self.rollout.advance(self.actions[:, self.past :], self.noises, self.exits).latents
        truth = self.truth[:, self.past :]
        error = (dreamed - truth).square().mean((0, 2, 3, 4))
        found = {f"valid_{h}": error[h - 1] for h in HORIZONS if h <= self.ticks}
        found["valid_detail"] = _detail(dreamed[:, -1]) / _detail(truth[:, -1]).clamp_min(1e-6)
        self._due += max(0.0, (time.monotonic() - began) / SHARE - EVERY)
        return found


def _detail(latents: Tensor) -> Tensor:
    return latents.diff(dim=-1).abs().mean() + latents.diff(dim=-2).abs().mean()
