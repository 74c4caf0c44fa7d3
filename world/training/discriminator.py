"""A discriminator of noised windows, and its relativistic pairing loss.

R3GAN (Huang et al. 2024); the penalties R1 and R2 are estimated by small steps, as in APT (Lin et al. 2025).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.training.scorer import Scorer, joint_attend
from playhead.world.training.train_generator import noised


class Discriminator(torch.nn.Module):
    """Tells dreamed windows from footage, noised: the scorer's network with a head of one logit a token."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = [scorer]  # its model is registered below, the rest of it is no module
        self.model = scorer.model
        self.judge = torch.nn.Linear(scorer.model.config.dim, 1).to(scorer.device)

    def forward(self, x: Tensor, levels: Tensor, actions: Tensor) -> Tensor:
        """Logits `(B, F, N)` of noised windows `x`."""
        scorer = self.scorer[0]
        with torch.autocast(scorer.device.type, torch.bfloat16, enabled=scorer.autocast):
            seen, _ = self.model.hidden(x, 1000 * levels, scorer.cos_sin, joint_attend, actions)
        seen = seen.float()
        logits: Tensor = self.judge(F.layer_norm(seen, seen.shape[-1:])).squeeze(-1)
        return logits


def relativistic_loss(
    discriminator: Discriminator,
    real: tuple[Tensor, Tensor],
    dreamed: tuple[Tensor, Tensor],
    levels: Tensor,
    penalty: tuple[float, float],
    draw: torch.Generator,
) -> Tensor:
    """Loss of the discriminator on latents and actions of `real` and `dreamed` windows, noised to `levels`.

    Pairing loss, and what logits change by when windows do, a little: `penalty` is the weight of that and the
    size of the step; at a weight of 0 that is left out.
    """
    pairs = []
    for latents, actions in (real, dreamed):
        fresh = torch.randn(latents.shape, generator=draw, device=latents.device)
        x = noised(latents, levels, fresh)
        pairs.append((x, actions, discriminator(x, levels, actions)))
    (_, _, true), (_, _, false) = pairs
    loss = F.softplus(false - true).mean()
    weight, step = penalty
    for x, actions, logit in pairs if weight else ():
        moved = x + step * torch.randn(x.shape, generator=draw, device=x.device)
        loss = loss + weight * (discriminator(moved, levels, actions) - logit).square().mean()
    return loss
