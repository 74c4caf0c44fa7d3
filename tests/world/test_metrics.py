"""The measures of evaluation, of pictures for which they are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.world.inverse import f1
from playhead.world.metrics import colour, frechet, psnr, sharpness

modest = settings(max_examples=30, deadline=None)
sizes = st.integers(3, 12)


@modest
@given(st.integers(0, 255), st.integers(0, 255), sizes, sizes)
def test_psnr_of_flat_pictures_is_that_of_their_difference(a: int, b: int, height: int, width: int) -> None:
    pictures = [torch.full((2, height, width, 3), grey, dtype=torch.uint8) for grey in (a, b)]
    wanted = min(60.0, 20 * math.log10(255 / abs(a - b))) if a != b else 60.0
    assert psnr(*pictures).tolist() == pytest.approx([wanted, wanted], abs=1e-4)
    assert torch.equal(psnr(*pictures), psnr(*pictures[::-1]))


def test_psnr_is_a_frames_own() -> None:
    frames = torch.zeros(3, 4, 5, 3, dtype=torch.uint8)
    other = frames.clone()
    other[1, 0, 0, 0] = 255  # one of 60 values is as wrong as can be
    assert psnr(frames, other).tolist() == pytest.approx([60, 10 * math.log10(60), 60], abs=1e-4)


def test_sharpness_is_none_in_a_ramp_and_grows_with_contrast_and_detail() -> None:
    ramp = torch.arange(12, dtype=torch.uint8).repeat(12, 1)[..., None].expand(-1, -1, 3)
    assert sharpness(ramp) == 0
    line = torch.zeros(12, 12, 3, dtype=torch.uint8)
    line[:, 6] = 100
    assert float(sharpness(line)) == pytest.approx((100 + 200 + 100) / 10)  # over the 10 inner columns
    assert sharpness(line // 2) == pytest.approx(0.5 * sharpness(line))
    checks = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 100
    checks = checks[..., None].expand(-1, -1, 3).to(torch.uint8)
    assert float(sharpness(checks)) == pytest.approx(400)
    assert sharpness(checks.roll(1, 0)) == pytest.approx(sharpness(checks))


def test_colour_is_the_mean_of_each_channel_and_the_contrast() -> None:
    picture = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(2, 4, 6, 3).clone()
    assert colour(picture).tolist() == [[10, 20, 30, 0]] * 2
    picture[1, :2] += 100
    mean = [60, 70, 80]
    spread = 50 * math.sqrt(24 / 23)
    assert colour(picture)[1].tolist() == pytest.approx([*mean, spread])


def test_f1_is_that_of_each_button() -> None:
    held = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 1, 0, 0]]) > 0
    seen = torch.tensor([[1, 0, 0, 0, 1], [1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]) > 0
    found = f1(seen, held).tolist()
    assert found == pytest.approx([1, 0, 2 / 3, 0, 0.5])
    never = torch.zeros(4, 1, dtype=torch.bool)
    assert f1(never, never).isnan().all()  # nothing to judge by


def test_the_frechet_distance_is_that_of_gaussians() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(4000, 3, generator=draw), torch.randn(4000, 3, generator=draw)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) < 0.02
    assert frechet(a, 2 * b + torch.tensor([3.0, 0, 0])) == pytest.approx(9 + 3, rel=0.05)
    assert math.isnan(frechet(a, b[:1]))
