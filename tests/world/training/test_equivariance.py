"""Scale equivariance promises: nothing is asked of what has it, and of what has not both halves learn."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.errors import PlayheadError
from playhead.world.lighttae import LightTAE
from playhead.world.training.autoencoder import AutoencoderTraining, encode_each, train_autoencoder
from playhead.world.training.equivariance import halves
from playhead.world.training.footage import Footage, pixels
from tests.world.training.runs import CONFIG, CPU
from tests.world.training.stages import Watched, autoencoder


def clips(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 3, 3, height, width, generator=torch.Generator().manual_seed(0))


def blocks(clip: Tensor) -> Tensor:
    """An encoder that is equivariant: the mean colour of four by four pixels."""
    return F.avg_pool2d(clip.flatten(0, 1), 4).unflatten(0, clip.shape[:2])


def paint(latents: Tensor) -> tuple[Tensor, None]:
    """The decoder to it."""
    return latents.repeat_interleave(4, -1).repeat_interleave(4, -2), None


@pytest.mark.parametrize(("height", "width"), [(64, 64), (24, 40), (20, 44)], ids=str)
def test_what_is_equivariant_has_no_error(height: int, width: int):
    """Of pictures of blocks so large that, halved, each is still a latent's."""
    large = clips(9, 9).repeat_interleave(8, -1).repeat_interleave(8, -2)[..., :height, :width]
    rebuilt, wanted = halves(paint, blocks(large), large)
    assert rebuilt.shape == wanted.shape == (2, 3, 3, height // 8 * 4, width // 8 * 4)
    torch.testing.assert_close(rebuilt, wanted)
    assert wanted.std() > 0.1


def test_what_mirrors_the_picture_has_an_error():
    large = clips(8, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
    rebuilt, wanted = halves(lambda z: (paint(z)[0].flip(-1), None), blocks(large), large)
    assert (rebuilt - wanted).abs().mean() > 0.1


def test_its_gradient_reaches_every_weight():
    torch.manual_seed(0)
    model = LightTAE(CONFIG.autoencoder)
    rebuilt, wanted = halves(model.decoder, encode_each(model, clips()), clips())
    (rebuilt - wanted).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def coarse_error(model: LightTAE, footage: Footage) -> float:
    clip = pixels(footage.frames[:24]).unflatten(0, (8, 3))
    with torch.no_grad():
        rebuilt, wanted = halves(model.decoder, encode_each(model, clip), clip)
    return float((rebuilt - wanted).square().mean())


def test_an_autoencoder_learns_to_be_equivariant(tmp_path: Path):
    """Stripes of a pixel are gone from the halved picture: who only rebuilds paints them there too."""
    frames = torch.zeros(24, 64, 64, 3, dtype=torch.uint8)
    frames[:, ::2] = 255
    striped = Footage(frames, torch.zeros(24, 8), [0], ["stripes"])
    run = Watched(tmp_path / "with", 60)
    shaped = autoencoder(run, striped, equivariance=1.0)
    plain = autoencoder(Watched(tmp_path / "without", 60), striped)
    assert run.fall("coarse") < 0.6
    assert coarse_error(shaped, striped) < 0.6 * coarse_error(plain, striped)


def test_latents_that_are_kept_are_not_shaped(footage: Footage, tmp_path: Path):
    start = tmp_path / "autoencoder.safetensors"
    autoencoder(Watched(tmp_path, 1), footage)
    settings = AutoencoderTraining(decoder_only=True, equivariance=0.5)
    with pytest.raises(PlayheadError, match="--equivariance shapes the latents, which --decoder-only keeps"):
        train_autoencoder(Watched(tmp_path / "run", 1), footage, CONFIG.autoencoder, settings, CPU, start)


def test_a_single_latent_cannot_be_halved(tmp_path: Path):
    small = Footage(torch.zeros(24, 16, 64, 3, dtype=torch.uint8), torch.zeros(24, 8), [0], ["small"])
    with pytest.raises(PlayheadError, match="--equivariance halves the latents: use a recipe of 2 x 2"):
        autoencoder(Watched(tmp_path, 1), small, equivariance=0.5)
