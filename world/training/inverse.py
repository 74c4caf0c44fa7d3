"""Training the inverse-dynamics model on real footage."""

from typing import Any

import msgspec
import torch
import torch.nn.functional as F

from world import acceleration, checkpoint
from world.inverse import AFTER, BEFORE, InverseDynamics
from world.training import distributed
from world.training.footage import Footage, pixels
from world.training.run import Ema, Run, trapezoid


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
    distributed.share(model)
    ema = Ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.02)

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        for key, value in state["ema"].items():
            ema.average[key].copy_(value)
        optimizer.load_state_dict(state["optimizer"])

    def save() -> dict[str, Any]:
        if run.rank == 0:
            checkpoint.save_weights(run.folder / "inverse.safetensors", ema.average)
        return {"model": model.state_dict(), "ema": ema.average, "optimizer": optimizer.state_dict()}

    run.resume(load)
    bf16 = acceleration.pick_dtype(device) == torch.bfloat16
    for step in run.loop("inverse dynamics", save, device):
        draw = torch.Generator().manual_seed(step * run.world_size + run.rank)
        index = footage.clip_index(settings.clips, BEFORE + 1 + AFTER, draw).to(footage.frames.device)
        clip = pixels(footage.frames[index].to(device))
        held = footage.actions[index[:, BEFORE]].to(device).float()
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * trapezoid(run.progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(clip)
        loss = F.binary_cross_entropy_with_logits(logits.float(), held)
        loss.backward()
        distributed.average_gradients(model)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(model, step)
        run.log(loss=loss)
    model.load_state_dict(ema.average)
    return model
