"""Sharpening a world's decoder: pictures as rough as footage, from the latents there are.

A decoder trained by squared error paints the mean of all pictures that a latent may stand for, which is
smooth. Here it goes on with two more losses. One compares how much fine detail there is around each place,
whatever it looks like. The other is a critic that tells rebuilt patches from real ones (a patch discriminator
as in pix2pix, Isola et al. 2017, with the relativistic pairing loss of R3GAN, Huang et al. 2024, each patch
against its own original, and approximate R1 and R2 penalties); it sees two frames in a row, so that flicker
counts too. The encoder stays as it is, hence so do the latents, and every generator that was trained on them.
A share of the clips may be those that the world's generator dreams (`world.training.dreams`).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world import acceleration, checkpoint
from playhead.world.lighttae import LightTAE, LightTAEConfig
from playhead.world.metrics import laplacian
from playhead.world.training.autoencoder import L1_WEIGHT, conv_optimizers, encode_each, picture_errors
from playhead.world.training.dreams import Dreams
from playhead.world.training.footage import Footage, pixels
from playhead.world.training.learner import Learner
from playhead.world.training.run import Run, trapezoid


class SharpenTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` clips of `length` frames, on each GPU.

    `detail` weighs the difference in fine detail beside the squared error; `share` is how much the critic is
    heard, as a part of all that (0: there is none). `penalty`: weight of its penalties,
    `penalty_noise` the size of the step they are estimated by. `dreamed`: the share of clips of a batch that
    are dreamed over by the generator, in up to `passes` passes.
    """

    clips: int = 16
    length: int = 4
    learning_rate: float = 3e-4
    critic_rate: float = 3e-4
    latent_noise: float = 0.05
    detail: float = 0.03
    share: float = 0.5
    penalty: float = 10.0
    penalty_noise: float = 0.01
    dreamed: float = 0.0
    passes: int = 3
    compile: bool = True


WIDTHS = (64, 128, 192)
"""Channels of the critic, at a half, a quarter and an eighth of the pictures' size."""


class PatchCritic(nn.Module):
    """Frames in pairs `(N, 6, H, W)` in [0, 1] to logits `(N, 1, H / 8, W / 8)`: how real each patch is."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise((24, *widths))):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, stride=1 if i == 0 else 2)]
            layers += [nn.GroupNorm(8, n_out), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(n_out, n_out, 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, pairs: Tensor) -> Tensor:
        found: Tensor = self.layers(F.pixel_unshuffle(2 * pairs - 1, 2))
        return found


def in_pairs(clip: Tensor) -> Tensor:
    """Each frame of clips `(N, T, 3, H, W)` beside the one before it: `(N * (T - 1), 6, H, W)`."""
    return torch.cat([clip[:, :-1], clip[:, 1:]], 2).flatten(0, 1)


class Sharpener:
    """The autoencoder, its critic, and a step of each."""

    def __init__(
        self, config: LightTAEConfig, settings: SharpenTraining, device: torch.device, start: Path
    ) -> None:
        torch.manual_seed(0)
        self.settings, self.device = settings, device
        self.model = LightTAE(config)
        checkpoint.fill(self.model, checkpoint.read_float(start), start)
        acceleration.channels_innermost(self.model, device)
        self.model.encoder.requires_grad_(False)
        self.critic = acceleration.channels_innermost(PatchCritic(WIDTHS), device)
        decoder = list(self.model.decoder.parameters())
        self.learner = Learner(
            self.model, conv_optimizers(decoder, settings.learning_rate, device), decay=0.999, clip=1e9
        )
        judge = torch.optim.AdamW(
            self.critic.parameters(), lr=settings.critic_rate, betas=(0.5, 0.95), weight_decay=0.01
        )
        self.critic_learner = Learner(self.critic, [judge], decay=0.99)
        self.autocast = acceleration.pick_dtype(device) == torch.bfloat16
        compiled = settings.compile and device.type == "cuda"
        self._encode: Callable[[Tensor], Tensor] = partial(encode_each, self.model)
        self._rebuild = self._decode
        if compiled:
            self._encode, self._rebuild = torch.compile(self._encode), torch.compile(self._decode)
        self._judge = torch.compile(self.critic) if compiled else self.critic

    @torch.no_grad()
    def latents(self, clip: Tensor) -> Tensor:
        """Raw latents of clips `(N, T, 3, H, W)`, as the decoder is given them but for their noise."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self._encode(clip)

    def _decode(self, z: Tensor, fresh: Tensor) -> Tensor:
        rebuilt: Tensor
        rebuilt, _ = self.model.decoder(z + self.settings.latent_noise * fresh.to(z.dtype))
        return rebuilt

    def logits(self, clip: Tensor) -> Tensor:
        logits: Tensor = self._judge(in_pairs(clip)).float()
        return logits

    def step(self, clip: Tensor, z: Tensor, factor: float) -> dict[str, Tensor]:
        """One step of the critic and one of the decoder on clips `(N, T, 3, H, W)`; what to log of them.

        `z`: their latents, or what a generator made of them.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            rebuilt = self._rebuild(z, torch.randn(z.shape, device=self.device))
            dream = rebuilt.detach().float()
        logs: dict[str, Tensor] = {}
        if self.settings.share:
            logs["critic"] = self._teach_critic(clip, dream, factor)
        dream.requires_grad_()
        l2, l1 = picture_errors(dream, clip)
        detail = (roughness(dream) - roughness(clip)).abs().mean()
        loss = l2 + L1_WEIGHT * l1 + self.settings.detail * detail
        error = torch.autograd.grad(loss, dream)[0]
        if self.settings.share:
            wanted = self._wish(clip, dream)
            error = error + self.settings.share * _size(error) / _size(wanted).clamp_min(1e-12) * wanted
        rebuilt.backward(error.to(rebuilt.dtype))
        self.learner.step(factor)
        ratio = (roughness(dream).mean() / roughness(clip).mean()).detach()
        return {"l2": l2, "l1": l1, "detail": detail, "sharpness": ratio, **logs}

    def _teach_critic(self, real: Tensor, false: Tensor, factor: float) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            told = self._critic_loss(real, false)
        told.backward()
        self.critic_learner.step(factor)
        return told.detach()

    def _wish(self, real: Tensor, false: Tensor) -> Tensor:
        """Where the critic would have the pictures `false` move against, a gradient of their shape."""
        self.critic.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            fooled = F.softplus(self.logits(real) - self.logits(false)).mean()
        gradient = torch.autograd.grad(fooled, false)[0]
        self.critic.requires_grad_(True)
        return gradient

    def _critic_loss(self, real: Tensor, false: Tensor) -> Tensor:
        """Relativistic pairing loss, and what logits change by when pictures do, a little (R1 and R2)."""
        s = self.settings
        logits = [self.logits(x) for x in (real, false)]
        loss = F.softplus(logits[1] - logits[0]).mean()
        for x, logit in zip((real, false), logits, strict=True):
            moved = self.logits(x + s.penalty_noise * torch.randn_like(x))
            loss = loss + s.penalty * (moved - logit).square().mean()
        return loss

    def state(self) -> dict[str, Any]:
        return {"model": self.learner.state(), "critic": self.critic_learner.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["model"])
        self.critic_learner.load_state(state["critic"])


def _size(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def roughness(clip: Tensor) -> Tensor:
    """How much fine detail there is around each place: the mean absolute Laplacian of 8 x 8 pixels.

    Of the brightness: detail of each colour for itself is as rough where the colours do not agree, as
    textures hardly ever do, and looks smooth.
    """
    detail = laplacian(clip.mean(2)).abs()
    return F.avg_pool2d(detail, 8, 4, padding=4, count_include_pad=False)


def train_sharpness(
    run: Run,
    footage: Footage,
    config: LightTAEConfig,
    settings: SharpenTraining,
    device: torch.device,
    start: Path,
    out: Path,
    dreams: Dreams | None = None,
) -> None:
    """Sharpens the decoder of `start` (an autoencoder's weights) in `run.folder`.

    Writes the autoencoder with the averaged decoder to `out` at every save. `dreams` are asked for as many
    clips as `SharpenTraining.dreamed` says.
    """
    sharpener = Sharpener(config, settings, device, start)
    run.resume(sharpener.load_state)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            sharpener.learner.keep(out)
        return sharpener.state()

    past = dreams.past if dreams is not None else 0
    led = footage.led().to(device) if dreams is not None else None
    for step in run.loop("sharpening", save, device):
        draw = torch.manual_seed(step * run.world_size + run.rank)
        index = footage.clip_index(settings.clips, past + settings.length, draw)
        clip = pixels(footage.frames[index.to(footage.frames.device)].to(device))
        z = sharpener.latents(clip)
        if dreams is not None and led is not None:
            count = round(settings.dreamed * len(clip))
            passes = int(torch.randint(1, settings.passes + 1, (), generator=draw))
            over = dreams(z[:count], led[index[:count].to(device)], passes)
            z = torch.cat([over, z[count:]])[:, past:]
        run.log(**sharpener.step(clip[:, past:], z, trapezoid(run.progress)))
