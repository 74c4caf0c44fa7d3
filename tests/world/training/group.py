"""What each process of a group that trains together does.

`torch.distributed.run -m tests.world.training.group SOURCE FOLDER` has two of them do it.
"""

import sys
from pathlib import Path

import pytest
import torch

from playhead.world.training import distributed
from playhead.world.training.autoencoder import encode_frames
from playhead.world.training.footage import Footage
from tests.world.training.runs import CPU
from tests.world.training.stages import Watched, autoencoder, generator


def train_in_a_group(source: Path, folder: Path) -> None:
    """Train, be interrupted (one of them), go on; and keep what it has."""
    rank, count = distributed.start()
    footage = Footage.load(source, CPU, rank, count)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(folder / "autoencoder", 14, stop=3 if rank == 1 else None), footage)
    torch.distributed.barrier()  # the first has written its checkpoint
    interrupted_at = torch.load(folder / "autoencoder" / "checkpoint.pt", weights_only=True)["step"]
    model = autoencoder(Watched(folder / "autoencoder", 14), footage)
    latents = encode_frames(model, footage.frames, CPU).float()
    with pytest.raises(KeyboardInterrupt):  # in the middle of a batch that stays for some turns
        generator(Watched(folder / "generator", 14, stop=3 if rank == 1 else None), footage, latents)
    torch.distributed.barrier()
    dreamer = generator(Watched(folder / "generator", 14), footage, latents)
    kept = {"frames": len(footage.frames), "interrupted_at": interrupted_at}
    kept |= {"autoencoder": model.state_dict(), "generator": dreamer.state_dict()}
    torch.save(kept, folder / f"{rank}.pt")


if __name__ == "__main__":
    train_in_a_group(*map(Path, sys.argv[1:]))
