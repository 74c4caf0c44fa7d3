"""The stages of training, each of a few steps on a little footage."""

import math
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from playhead.world.checkpoint import save_weights
from playhead.world.lighttae import LightTAE
from playhead.world.training.autoencoder import AutoencoderTraining, train_autoencoder
from playhead.world.training.distill import distill
from playhead.world.training.dreams import Dreams
from playhead.world.training.footage import Footage
from playhead.world.training.objectives import OBJECTIVES, DistillTraining, Objective
from playhead.world.training.run import Run
from playhead.world.training.scorer import ScorerTraining, train_scorer
from playhead.world.training.sharpen import SharpenTraining, train_sharpness
from playhead.world.training.train_generator import GeneratorTraining, Optimizer, train_generator
from playhead.world.training.train_inverse import InverseTraining, train_inverse
from tests.conftest import make_tiny_world
from tests.world.training.runs import CONFIG, CPU


class Watched(Run):
    """A run that remembers its losses, and may be interrupted from the keyboard after `stop` steps."""

    def __init__(self, folder: Path, steps: int, stop: int | None = None) -> None:
        super().__init__(folder, steps=steps, report_every=math.inf)  # however slow the machine
        self.stop = stop
        self.losses: dict[str, list[float]] = {}
        self.seen: set[int] = set()

    def log(self, **losses: Tensor) -> None:
        super().log(**losses)
        self.seen.add(self.step)
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value.detach()))
        if self.step + 1 == self.stop:
            signal.raise_signal(signal.SIGINT)

    def fall(self, name: str) -> float:
        """The mean loss of the last tenth of the steps, as a part of that of the first tenth."""
        values = self.losses[name]
        count = len(values) // 10
        return sum(values[-count:]) / sum(values[:count])


def autoencoder(run: Run, footage: Footage, **shaping: float) -> LightTAE:
    settings = AutoencoderTraining(clips=4, length=3, learning_rate=3e-3, **shaping)
    return train_autoencoder(run, footage, CONFIG.autoencoder, settings, CPU)


def generator(run: Run, footage: Footage, latents: Tensor, optimizer: Optimizer = "muon") -> nn.Module:
    settings = GeneratorTraining(clips=6, length=8, learning_rate=3e-3, optimizer=optimizer)
    out = run.folder / "generator.safetensors"
    return train_generator(run, latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, out)


def inverse(run: Run, footage: Footage) -> nn.Module:
    return train_inverse(run, footage, InverseTraining(clips=8), CPU)


def resting(footage: Footage) -> Footage:
    """Footage in which nothing is held from half-way on."""
    actions = footage.actions.clone()
    actions[len(actions) // 2 :] = 0
    return Footage(footage.frames, actions, footage.starts, footage.places)


def distilled(
    run: Run, footage: Footage, latents: Tensor, objective: Objective = "dmd", origin: int = 0
) -> None:
    start = run.folder / "start" / "generator.safetensors"
    start.parent.mkdir(exist_ok=True)
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    settings = DistillTraining(
        objective=objective, clips=2, length=6, past=3, critic_steps=2, horizon=9, origin=origin
    )
    if objective == "rest":
        footage = resting(footage)
    out = run.folder / "generator.safetensors"
    distill(run, latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, start, start, out)


def scorer(run: Run, footage: Footage, latents: Tensor, origin: int = 0) -> None:
    settings = ScorerTraining(clips=6, length=8, past=3, learning_rate=3e-3, origin=origin)
    out = run.folder / "scorer.safetensors"
    train_scorer(run, latents, footage, CONFIG.generator, settings, CPU, out)


def sharpened(run: Run, footage: Footage, **settings: float) -> None:
    start = run.folder / "start" / "autoencoder.safetensors"
    start.parent.mkdir(exist_ok=True)
    save_weights(start, make_tiny_world(one_pass=True).autoencoder.state_dict())
    chosen = SharpenTraining(clips=4, length=3, **settings)
    dreams = new_dreams(start.parent) if chosen.dreamed else None
    out = run.folder / "autoencoder.safetensors"
    train_sharpness(run, footage, CONFIG.autoencoder, chosen, CPU, start, out, dreams)


def new_dreams(folder: Path) -> Dreams:
    weights = folder / "generator.safetensors"
    save_weights(weights, make_tiny_world(one_pass=True).generator.state_dict(), torch.float32)
    return Dreams(CONFIG, weights, CPU)


Stage = Callable[[Run, Footage, Tensor], object]


STAGES: dict[str, Stage] = {
    "autoencoder": lambda run, footage, latents: autoencoder(run, footage),
    "autoencoder, equivariant": lambda run, footage, latents: autoencoder(run, footage, equivariance=0.5),
    "autoencoder, masked": lambda run, footage, latents: autoencoder(run, footage, mask_channels=0.5),
    "sharpen": lambda run, footage, latents: sharpened(run, footage),
    "sharpen dreams": lambda run, footage, latents: sharpened(run, footage, dreamed=0.5),
    "generator": generator,
    "generator without Muon": partial(generator, optimizer="adamw"),
    "generator by NorMuon": partial(generator, optimizer="normuon"),
    "scorer": scorer,
    "scorer from an origin": partial(scorer, origin=2),
    **{f"distill {name}": partial(distilled, objective=name) for name in OBJECTIVES},
    **{f"distill {name} from an origin": partial(distilled, objective=name, origin=2) for name in OBJECTIVES},
    "inverse": lambda run, footage, latents: inverse(run, footage),
}
