"""The footage that training is tried on, as frames and as latents."""

import pytest
import torch
from torch import Tensor

from playhead.world.lighttae import LightTAE
from playhead.world.training import sharpen
from playhead.world.training.autoencoder import encode_frames, latent_statistics
from playhead.world.training.footage import Footage
from tests.world.game import write_footage
from tests.world.training.runs import CONFIG, CPU


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return Footage.load(write_footage(tmp_path_factory.mktemp("footage"), 6, 24), CPU)


@pytest.fixture(scope="session")
def latents(footage: Footage) -> Tensor:
    """The footage in the latents of a fresh autoencoder, normalised."""
    torch.manual_seed(0)
    found = encode_frames(LightTAE(CONFIG.autoencoder), footage.frames, CPU)
    mean, std = latent_statistics(found)
    return (found - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(autouse=True)
def small_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic of a size with tiny worlds: the real one takes several times as long as all else."""
    monkeypatch.setattr(sharpen, "WIDTHS", (16, 16, 16))
