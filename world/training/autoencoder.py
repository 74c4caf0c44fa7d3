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

from playhead.world import acceleration, checkpoint
from playhead.world.errors import PlayheadError
from playhead.world.lighttae import LightTAE, LightTAEConfig
from playhead.world.training.equivariance import halves
from playhead.world.training.footage import Footage, pixels
from playhead.world.training.learner import Learner
from playhead.world.training.masking import prefixes
from playhead.world.training.muon import MatrixMuon
from playhead.world.training.run import Run, trapezoid

L1_WEIGHT = 0.05
"""What absolute error counts beside squared error."""


class AutoencoderTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` clips of `length` frames, on each GPU.

    `decoder_only`: the encoder, and with it the latents, stay what they were. `equivariance`: the share of
    clips whose halved latents are decoded too, to halved pictures (one clip at least, unless it is 0).
    `mask_channels`: the share of clips that are rebuilt from the first few channels.
    """

    clips: int = 16
    length: int = 5
    learning_rate: float = 1e-3
    latent_noise: float = 0.05
    latent_pull: float = 1e-5
    decoder_only: bool = False
    equivariance: float = 0.0
    mask_channels: float = 0.0
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
        _begin_from(model, start, settings.decoder_only)
    elif settings.decoder_only:
        raise PlayheadError("--decoder-only needs weights to take the encoder from: give them by --start")
    if settings.mask_channels:
        _check_masking(settings, config)
    if settings.equivariance:
        _check_equivariance(settings, config, footage)
    acceleration.channels_innermost(model, device)
    model.encoder.requires_grad_(not settings.decoder_only)
    taught = [p for p in model.parameters() if p.requires_grad]
    optimizers = conv_optimizers(taught, settings.learning_rate, device)
    learner = Learner(model, optimizers, decay=0.999, clip=0.5)
    run.resume(learner.load_state)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(run.folder / "autoencoder.safetensors")
        return learner.state()

    halved = max(1, round(settings.equivariance * settings.clips)) if settings.equivariance else 0

    def losses(clip: Tensor, stay: Tensor | None) -> dict[str, Tensor]:
        with torch.set_grad_enabled(not settings.decoder_only):
            z = encode_each(model, clip)
        noisy = z + settings.latent_noise * torch.randn_like(z)
        rebuilt, _ = model.decoder(noisy if stay is None else noisy * stay)
        l2, l1 = picture_errors(rebuilt, clip)
        found = {"l2": l2, "l1": l1, "latent_size": z.float().square().mean()}
        if halved:
            coarse_l2, coarse_l1 = picture_errors(*halves(model.decoder, z[:halved], clip[:halved]))
            found["coarse"] = coarse_l2 + L1_WEIGHT * coarse_l1
        return found

    step_losses = torch.compile(losses) if settings.compile and device.type == "cuda" else losses
    bf16 = acceleration.pick_dtype(device) == torch.bfloat16
    for step in run.loop("autoencoder", save, device):
        # Seeded anew for each step, so that a resumed run draws what an unbroken one would.
        draw = torch.manual_seed(step * run.world_size + run.rank)
        index = footage.clip_index(settings.clips, settings.length, draw)
        clip = pixels(footage.frames[index.to(footage.frames.device)].to(device))
        stay = None
        if settings.mask_channels:
            stay = prefixes(settings.clips, config.latent_channels, settings.mask_channels, draw).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found = step_losses(clip, stay)
            loss = found["l2"] + L1_WEIGHT * found["l1"] + settings.latent_pull * found["latent_size"]
            if halved:
                loss = loss + halved / settings.clips * found["coarse"]
        loss.backward()
        learner.step(trapezoid(run.progress))
        run.log(**found)
    learner.take_average()
    return model


def _check_masking(settings: AutoencoderTraining, config: LightTAEConfig) -> None:
    """Raises PlayheadError where the latents cannot be shaped, or have no channels to mask."""
    if settings.decoder_only:
        raise PlayheadError("--mask-channels shapes the latents, which --decoder-only keeps; leave one out")
    if config.latent_channels < 2:
        raise PlayheadError("--mask-channels leaves some of the channels out: use a recipe of 2 at least")


def _check_equivariance(settings: AutoencoderTraining, config: LightTAEConfig, footage: Footage) -> None:
    """Raises PlayheadError where the latents cannot be shaped, or not be halved."""
    if settings.decoder_only:
        raise PlayheadError("--equivariance shapes the latents, which --decoder-only keeps; leave one out")
    if min(footage.frames.shape[1:3]) < 2 * config.space_factor:
        raise PlayheadError("--equivariance halves the latents: use a recipe of 2 x 2 of them at least")


def _begin_from(model: LightTAE, start: Path, decoder_only: bool) -> None:
    """Takes weights over; where the decoder is taught alone and is of other sizes, the encoder's only."""
    weights = checkpoint.read_float(start)
    own = model.state_dict()
    alike = all(k in weights and weights[k].shape == v.shape for k, v in own.items() if "decoder." in k)
    if decoder_only and not alike:
        weights = {k: v for k, v in own.items() if "decoder." in k} | {
            k: v for k, v in weights.items() if k.startswith("encoder.")
        }
    checkpoint.fill(model, weights, start)


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
    latents: Tensor = z.squeeze(1).unflatten(0, frames.shape[:2])
    return latents


@torch.no_grad()
def encode_frames(model: LightTAE, frames: Tensor, device: torch.device) -> Tensor:
    """Raw latents `(N, C, h, w)` bfloat16 of frames uint8 `(N, H, W, 3)`, on `device`."""
    parts = []
    for chunk in frames.split(256):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            parts.append(encode_each(model, pixels(chunk.to(device))[None])[0].to(torch.bfloat16))
    return torch.cat(parts)


def latent_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of every channel, float32, over a sample of the frames."""
    sample = latents[:: max(1, len(latents) // 20000)].float()
    return sample.mean((0, 2, 3)), sample.std((0, 2, 3))
