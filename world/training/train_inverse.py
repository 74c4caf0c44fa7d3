"""Training the inverse-dynamics model on real footage."""

from typing import Any

import msgspec
import torch
import torch.nn.functional as F

from playhead.world import acceleration
from playhead.world.inverse import AFTER, BEFORE, InverseDynamics
from playhead.world.training.footage import Footage, pixels
from playhead.world.training.learner import Learner
from playhead.world.training.run import Run, trapezoid


class InverseTraining(msgspec.Struct, frozen=True):
    """Settings of a run; a batch is `clips` windows of four frames, on each GPU."""

    clips: int = 256
    learning_rate: float = 1.5e-3


def train_inverse(
    run: Run, footage: Footage, settings: InverseTraining, device: torch.device
) -> InverseDynamics:
    """Trains (or goes on training) in `run.folder`; writes `inverse.safetensors` there at every save."""
    torch.manual_seed(0)
    model = InverseDynamics(footage.actions.shape[1]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.02)
    learner = Learner(model, [optimizer], decay=0.999)
    run.resume(learner.load_state)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(run.folder / "inverse.safetensors")
        return learner.state()

    bf16 = acceleration.pick_dtype(device) == torch.bfloat16
    for step in run.loop("inverse dynamics", save, device):
        draw = torch.Generator().manual_seed(step * run.world_size + run.rank)
        index = footage.clip_index(settings.clips, BEFORE + 1 + AFTER, draw).to(footage.frames.device)
        clip = pixels(footage.frames[index].to(device))
        held = footage.actions[index[:, BEFORE]].to(device).float()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(clip)
        loss = F.binary_cross_entropy_with_logits(logits.float(), held)
        loss.backward()
        learner.step(trapezoid(run.progress))
        run.log(loss=loss)
    learner.take_average()
    return model
