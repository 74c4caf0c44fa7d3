"""A model in training: its optimizers, its average, one step of it, and what a checkpoint holds of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from playhead.world import checkpoint
from playhead.world.training import distributed


class Ema:
    """An exponential moving average of a module's parameters, `average`, updated in place."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves towards the module; faster in the first steps, when there is little to remember."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        held = list(self.average.values())
        new = [v.to(h.dtype) for v, h in zip(module.state_dict().values(), held, strict=True)]
        torch._foreach_lerp_(held, new, weight)


class Learner:
    """Trains `model` by `optimizers` (each with its peak learning rate); `average` is what is kept of it."""

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], decay: float, clip: float = 1.0
    ) -> None:
        distributed.share(model)
        self.model, self.optimizers, self.clip = model, list(optimizers), clip
        self._ema = Ema(model, decay)
        self.steps = 0
        for group in self._groups():
            group["peak"] = group["lr"]

    @property
    def average(self) -> dict[str, Tensor]:
        return self._ema.average

    def step(self, factor: float) -> Tensor:
        """One step along the gradients that are there, at `factor` times the peak learning rates.

        Gradients are averaged over all processes, clipped, and gone afterwards. Returns their norm.
        """
        distributed.average_gradients(self.model)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for group in self._groups():
            group["lr"] = group["peak"] * factor
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._ema.update(self.model, self.steps)
        self.steps += 1
        return norm

    def keep(self, path: Path) -> None:
        """Writes the averaged weights."""
        checkpoint.save_weights(path, self.average)

    def take_average(self) -> None:
        """Gives the model its averaged weights, at the end of a run."""
        self.model.load_state_dict(self.average)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)
        peaks = [group["peak"] for group in self._groups()]
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        for group, peak in zip(self._groups(), peaks, strict=True):
            group["peak"] = peak  # that of this run, should it be another one
        self.steps = state["steps"]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]
