"""Masking promises: what stays is a prefix, as often and as long as it should be, of a whole clip."""

from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from playhead.world.errors import PlayheadError
from playhead.world.lighttae import Decoder, Memory
from playhead.world.training.autoencoder import AutoencoderTraining, train_autoencoder
from playhead.world.training.footage import Footage
from playhead.world.training.masking import prefixes
from tests.world.training.runs import CONFIG, CPU
from tests.world.training.stages import Watched, autoencoder


def test_what_stays_is_a_prefix_of_any_length():
    masks = prefixes(4000, 64, 0.5, torch.Generator().manual_seed(0))
    assert masks.shape == (4000, 1, 64, 1, 1)
    rows = masks.flatten(1)
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert (rows[:, 1:] <= rows[:, :-1]).all()  # once a channel is gone, so are all behind it
    stay = rows.sum(1)
    assert 0.45 < (stay < 64).float().mean() < 0.55
    few = stay[stay < 64]
    assert (few.min(), few.max()) == (8, 63)
    assert 33 < few.mean() < 38  # all lengths alike


@pytest.mark.parametrize("channels", [2, 8, 12])
def test_with_few_channels_one_stays_at_least(channels: int):
    stay = prefixes(400, channels, 1.0, torch.Generator().manual_seed(0)).flatten(1).sum(1)
    assert set(stay.tolist()) == set(map(float, range(1, channels)))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_decoder_is_given_the_prefix_of_some_clips(
    share: float, footage: Footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[Tensor] = []
    forward = Decoder.forward

    def watched(decoder: Decoder, latents: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        given.append(latents.detach())
        return forward(decoder, latents, memory)

    monkeypatch.setattr(Decoder, "forward", watched)
    autoencoder(Watched(tmp_path, 20), footage, mask_channels=share)
    seen = torch.cat(given).abs().amax((-2, -1)) > 0  # (clips, frames, channels)
    assert (seen == seen[:, :1]).all()  # one prefix for a whole clip
    assert (seen[:, :, 1:] <= seen[:, :, :-1]).all()
    assert seen[:, :, 0].all()
    some = (~seen[:, 0, -1]).float().mean()
    assert some == share if share in (0, 1) else 0.3 < some < 0.7


def test_latents_that_are_kept_are_not_masked(footage: Footage, tmp_path: Path):
    start = tmp_path / "autoencoder.safetensors"
    autoencoder(Watched(tmp_path, 1), footage)
    settings = AutoencoderTraining(decoder_only=True, mask_channels=0.5)
    with pytest.raises(PlayheadError, match="--mask-channels shapes the latents, which --decoder-only keeps"):
        train_autoencoder(Watched(tmp_path / "run", 1), footage, CONFIG.autoencoder, settings, CPU, start)


def test_a_single_channel_cannot_be_masked(footage: Footage, tmp_path: Path):
    single = msgspec.structs.replace(CONFIG.autoencoder, latent_channels=1)
    settings = AutoencoderTraining(mask_channels=0.5)
    with pytest.raises(PlayheadError, match="--mask-channels leaves some of the channels out"):
        train_autoencoder(Watched(tmp_path, 1), footage, single, settings, CPU)
