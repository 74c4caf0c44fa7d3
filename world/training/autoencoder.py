"""Training the autoencoder of a world on footage.

Frames are rebuilt from latents that carry a little noise, so that near latents decode to near pictures,
which is what a generator with small errors needs. Latents are kept near unit size by a weak pull. The
convolutions learn by Muon: in equal short runs on crops it rebuilt held-out frames 6 dB better than AdamW.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from world import acceleration, checkpoint
from world.lighttae import LightTAE, LightTAEConfig
from world.training.footage import Footage, pixels
from world.training.learner import Learner
from world.training.muon import MatrixMuon
from world.training.run import Run, trapezoid

L1_WEIGHT = 0.05
"""What absolute error counts beside squared error."""


class AutoencoderTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` clips of `length` frames, on each GPU."""

    clips: int = 16
    length: int = 5
    learning_rate: float = 1e-3
    latent_noise: float = 0.05
    latent_pull: float = 1e-5
    compile: bool = True


def train_autoencoder(
    run: Run,
    footage: Footage,
    config: LightTAEConfig,
    settings: AutoencoderTraining,
    device: torch.device,
    start: Path | None = None,
) -> LightTAE:
    """Trains (or goes on training) in `run.folder`; writes `autoencoder.safetensors` there at every save.

    `start`: weights to begin from. Returns the averaged model, on `device`.
    """
    torch.manual_seed(0)
    model = LightTAE(config)
    if start is not None:
        checkpoint.fill(model, checkpoint.read_float(start), start)
    model.to(device, memory_format=torch.channels_last)
    optimizers = conv_optimizers(list(model.parameters()), settings.learning_rate, device)
    learner = Learner(model, optimizers, decay=0.999, clip=0.5)
    run.resume(learner.load_state)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(run.folder / "autoencoder.safetensors")
        return learner.state()

    def losses(clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = encode_each(model, clip)
        noisy = z + settings.latent_noise * torch.randn_like(z)
        rebuilt, _ = model.decoder(noisy)
        return *picture_errors(rebuilt, clip), z.float().square().mean()

    step_losses = torch.compile(losses) if settings.compile and device.type == "cuda" else losses
    bf16 = acceleration.pick_dtype(device) == torch.bfloat16
    for step in run.loop("autoencoder", save, device):
        # Seeded anew for each step, so that a resumed run draws what an unbroken one would.
        draw = torch.manual_seed(step * run.world_size + run.rank)
        index = footage.clip_index(settings.clips, settings.length, draw)
        clip = pixels(footage.frames[index.to(footage.frames.device)].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            l2, l1, size = step_losses(clip)
            loss = l2 + L1_WEIGHT * l1 + settings.latent_pull * size
        loss.backward()
        learner.step(trapezoid(run.progress))
        run.log(l2=l2, l1=l1, latent_size=size)
    learner.take_average()
    return model


def picture_errors(rebuilt: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared and mean absolute error."""
    error = rebuilt.float() - clip
    return error.square().mean(), error.abs().mean()


def conv_optimizers(
    parameters: Sequence[nn.Parameter], learning_rate: float, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions, AdamW for the rest."""
    return [
        MatrixMuon((p for p in parameters if p.ndim == 4), learning_rate),
        torch.optim.AdamW(
            [p for p in parameters if p.ndim < 4], lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01,
            fused=device.type == "cuda",
        ),
    ]  # fmt: skip


def encode_each(model: LightTAE, frames: Tensor) -> Tensor:
    """Encodes pixels `(N, T, 3, H, W)` frame by frame, each as a stream of its own: `(N, T, C, h, w)`.

    At a time factor of 1 a latent then depends on its frame alone, wherever the frame came from.
    """
    z, _ = model.encoder(frames.flatten(0, 1).unsqueeze(1))
    return z.squeeze(1).unflatten(0, frames.shape[:2])


@torch.no_grad()
def encode_footage(model: LightTAE, footage: Footage, device: torch.device) -> Tensor:
    """Raw latents `(N, C, h, w)` bfloat16 of all frames, on `device`."""
    parts = []
    for chunk in footage.frames.split(256):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            parts.append(encode_each(model, pixels(chunk.to(device))[None])[0].to(torch.bfloat16))
    return torch.cat(parts)


def latent_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of every channel, float32, over a sample of the frames."""
    sample = latents[:: max(1, len(latents) // 20000)].float()
    return sample.mean((0, 2, 3)), sample.std((0, 2, 3))
