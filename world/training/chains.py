"""Chains: groups of sessions that dream on from stretch to stretch while a student is distilled."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from playhead.world.training.origins import with_origin
from playhead.world.training.self_rollout import RolloutSegment, SelfRollout
from playhead.world.training.steady import FREE

LOST = 0.5
"""Root mean square, in normalised latents, beyond which a session at rest no longer shows what it saw."""

KEPT = ("latents", "actions", "held", "chords", "view", "origin", "known", "at")
"""What a checkpoint holds of a chain, beside its cache and its counts."""


@dataclass
class Chain:
    """A group of sessions: its rollout, and the newest latents and actions, of which `real` are footage.

    `actions` `(B, past, told)` end with the label of each session's place. `chords` `(B)`, on the CPU, is
    what each session holds until it turns to another (`SteadyWindows`), `held` `(B, 1, inputs)` its buttons.
    `view` `(B, 1, C, h, w)` is the last real latent, or the one at which a session turned. `origin`
    `(B, N, C, h, w)` are the last N real ones that each began with, and zeros of those that are not `known`,
    bool `(B)`: footage in which one chord is held comes from elsewhere, and only of a session that never held
    one can it be said what a place looks like that long after. `at` int64 `(B)`, on the CPU, is the frame of
    footage at which the window of each session's last stretch begins.
    """

    rollout: SelfRollout
    latents: Tensor
    actions: Tensor
    held: Tensor
    chords: Tensor
    view: Tensor
    origin: Tensor
    known: Tensor
    at: Tensor
    real: int = 0
    left: int = 0  # stretches until it starts anew

    def begin(
        self, past: Tensor, actions: Tensor, noises: Tensor, chords: Tensor, held: Tensor, stretches: int
    ) -> None:
        """Starts anew at a real past of latents `(B, past, C, h, w)`, to live for so many stretches.

        `noises` `(past, B, 1, C, h, w)` are those of that past.
        """
        self.latents.copy_(past)
        self.actions.copy_(actions)
        self.chords.copy_(chords)
        self.held.copy_(held[:, None])
        self.view.copy_(past[:, -1:])
        self.known.copy_(chords == FREE)
        self.origin.copy_(self.shown(past[:, past.shape[1] - self.origin.shape[1] :]))
        self.real, self.left = past.shape[1], stretches
        self.rollout.begin(self.latents, self.actions, noises)

    @property
    def age(self) -> int:
        """Ticks that these sessions have dreamed since they began."""
        return self.rollout.cache.length - self.latents.shape[1]

    def led(self, actions: Tensor) -> Tensor:
        """What these sessions are told when footage holds `actions` `(B, S, told)`."""
        inputs = self.held.shape[-1]
        free = (self.chords == FREE)[:, None, None].to(actions.device, non_blocking=True)
        label = self.actions[:, -1:, inputs:].expand(-1, actions.shape[1], -1)
        return torch.cat([torch.where(free, actions[..., :inputs], self.held), label], -1)

    def turn(self, chords: Tensor, held: Tensor) -> None:
        """Sessions go on with `chords` `(B)`, on the CPU, which are the buttons `held` `(B, inputs)`."""
        turned = (chords != self.chords).to(self.held.device, non_blocking=True)
        wide = turned[:, None, None, None, None]
        self.chords.copy_(chords)
        self.held.copy_(held[:, None])
        self.view.copy_(torch.where(wide, self.latents[:, -1:], self.view))
        self.known &= ~turned
        self.origin.copy_(self.shown(self.origin))

    def shown(self, origin: Tensor) -> Tensor:
        """What a judge is shown of `origin` `(B, N, C, h, w)`, or nothing where not `known`."""
        return origin * self.known[:, None, None, None, None]

    def rests(self) -> Tensor:
        """Which sessions hold nothing, bool `(B)`."""
        return (self.chords != FREE).to(self.held.device) & ~self.held.any(2)[:, 0]

    def state(self) -> dict[str, Any]:
        cache = self.rollout.state()
        tensors = {name: getattr(self, name) for name in KEPT}
        return {"cache": cache, **tensors, "real": self.real, "left": self.left}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rollout.load_state(state["cache"])
        for name in KEPT:
            held = getattr(self, name)
            if held.shape != state[name].shape:  # an origin of one latent would be copied into any other
                raise ValueError(f"a chain's {name} has another shape")
            held.copy_(state[name])
        self.real, self.left = state["real"], state["left"]


@dataclass(frozen=True)
class ScoredWindow:
    """What is scored: latents `(B, length, C, h, w)`, the first `real` of them footage, and the actions.

    `phase` `(B, 2)`: the lowest and the highest noise level of the step that each session left after. `rests`
    `(B)`: which sessions have held nothing since they saw `view` `(B, 1, C, h, w)`. `origin`
    `(B, N, C, h, w)` is what they began with.
    """

    latents: Tensor
    actions: Tensor
    real: int
    stretch: RolloutSegment
    phase: Tensor
    rests: Tensor
    view: Tensor
    origin: Tensor

    @property
    def clean(self) -> int:
        """How many of the first latents a judge is shown without noise: footage, or the origin."""
        return max(self.real, self.origin.shape[1])

    def judged(self, inputs: int) -> "ScoredWindow":
        """As a judge is shown it: its first latents are the origin. `inputs`: buttons of an action."""
        latents, actions = with_origin(self.latents, self.actions, self.origin, inputs)
        return replace(self, latents=latents, actions=actions)

    def lost(self) -> Tensor:
        """Which sessions no longer show their view, bool `(B, 1, 1, 1, 1)`."""
        away = (self.newest() - self.view).square().mean((1, 2, 3, 4), keepdim=True)
        return away > LOST**2

    def newest(self) -> Tensor:
        """The last latent before those that the window's stretch dreamed, `(B, 1, C, h, w)`."""
        return self.latents[:, -self.stretch.latents.shape[1] - 1, None]

    def still(self) -> Tensor:
        """What each session should go on showing while it rests, `(B, 1, C, h, w)`.

        That is its view as long as it can be told from what it shows. A session that has lost it should
        stay as it is: squared error against a view that is nowhere in its past would teach the mean of
        all views, and a little of that in every tick is a picture that fades to grey.
        """
        return torch.where(self.lost(), self.newest(), self.view)
