"""LightTAE: a stream is the same video as the whole clip, whatever way it is cut."""

from functools import cache
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.lighttae import LightTAE, LightTAEConfig, Memory

WAN = LightTAEConfig(latent_channels=4, encoder_widths=(8, 8, 8, 8), decoder_widths=(16, 8, 8, 8))
"""The public layout, narrower: 4 frames a latent, 8 x 8 pixels a position."""

PATCHED = LightTAEConfig(
    latent_channels=4,
    patch=4,
    encoder_widths=(8, 8, 8, 8),
    decoder_widths=(16, 8, 8, 8),
    encoder_space=(True, True, False),
    encoder_time=(False, False, False),
    decoder_space=(False, True, True),
    decoder_time=(False, False, False),
)
"""The shipped world's layout, narrower: a frame a latent, 16 x 16 pixels a position."""

both = pytest.mark.parametrize("config", [WAN, PATCHED], ids=["time factor 4", "time factor 1"])
modest = settings(max_examples=15, deadline=None)
splits = st.lists(st.integers(1, 3), min_size=1, max_size=5)
seeds = st.integers(0, 2**32)


@cache
def model(config: LightTAEConfig) -> LightTAE:
    torch.manual_seed(0)
    return LightTAE(config).requires_grad_(False)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents(config: LightTAEConfig, seed: int, count: int, n: int = 1) -> Tensor:
    return normal(seed, n, count, config.latent_channels, 2, 3)


def video(config: LightTAEConfig, seed: int, count: int) -> Tensor:
    factor = config.space_factor
    return normal(seed, 1, count, 3, 2 * factor, 3 * factor).sigmoid()


def cut(x: Tensor, sizes: list[int]) -> list[Tensor]:
    return [x[:, end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


@both
@modest
@given(splits, seeds)
def test_decoding_in_any_split_is_decoding_the_whole_clip(
    config: LightTAEConfig, sizes: list[int], seed: int
) -> None:
    z = latents(config, seed, sum(sizes))
    whole, _ = model(config).decoder(z)
    parts: list[Tensor] = []
    memory: Memory | None = None
    for part in cut(z, sizes):
        frames, memory = model(config).decoder(part, memory)
        parts.append(frames)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@both
@modest
@given(splits, seeds)
def test_encoding_in_any_split_of_whole_groups_is_encoding_the_whole_clip(
    config: LightTAEConfig, sizes: list[int], seed: int
) -> None:
    sizes = [size * config.time_factor for size in sizes]
    frames = video(config, seed, sum(sizes))
    whole, _ = model(config).encoder(frames)
    parts: list[Tensor] = []
    memory: Memory | None = None
    for part in cut(frames, sizes):
        z, memory = model(config).encoder(part, memory)
        parts.append(z)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@both
@modest
@given(splits)
def test_a_stream_is_trimmed_once(config: LightTAEConfig, sizes: list[int]) -> None:
    """The first latent of a stream yields one frame, each later one a frame a time step."""
    memory: Memory | None = None
    for i, part in enumerate(cut(latents(config, 0, sum(sizes)), sizes)):
        frames, memory = model(config).decoder(part, memory)
        trimmed = config.time_factor - 1 if i == 0 else 0
        assert frames.shape[1] == config.time_factor * part.shape[1] - trimmed


@both
@modest
@given(seeds, st.integers(1, 4))
def test_a_latent_changes_no_frame_before_its_own(config: LightTAEConfig, seed: int, at: int) -> None:
    z = latents(config, seed, 6)
    altered = z.clone()
    altered[:, at] += 1
    first = config.time_factor * at - (config.time_factor - 1)
    a, b = model(config).decoder(z)[0], model(config).decoder(altered)[0]
    assert torch.equal(a[:, :first], b[:, :first])
    assert not torch.equal(a[:, first], b[:, first])


@both
def test_a_stream_can_go_on_twice_from_the_same_memory(config: LightTAEConfig) -> None:
    """Snapshots hold memories: decoding must read them and never write to them."""
    _, memory = model(config).decoder(latents(config, 1, 2))
    kept = [past.clone() for past in memory]
    later = latents(config, 2, 2)
    first, _ = model(config).decoder(later, memory)
    model(config).decoder(latents(config, 3, 1), memory)
    again, _ = model(config).decoder(later, memory)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(kept, memory, strict=True))


@both
def test_neither_pixels_nor_latents_are_written_to(config: LightTAEConfig) -> None:
    z, frames = latents(config, 4, 2), video(config, 4, 3)
    before = z.clone(), frames.clone()
    model(config).decoder(z)
    model(config).encoder(frames)
    assert torch.equal(z, before[0]) and torch.equal(frames, before[1])


@both
def test_clips_of_a_batch_do_not_mix(config: LightTAEConfig) -> None:
    z = latents(config, 5, 3, n=2)
    together, memory = model(config).decoder(z)
    later, _ = model(config).decoder(z, memory)
    for i in range(2):
        alone, past = model(config).decoder(z[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
        assert torch.allclose(later[i : i + 1], model(config).decoder(z[i : i + 1], past)[0], atol=1e-5)


@both
@modest
@given(st.integers(1, 9), seeds)
def test_the_encoder_fills_the_last_group_with_copies_of_the_last_frame(
    config: LightTAEConfig, count: int, seed: int
) -> None:
    frames = video(config, seed, count)
    groups = -(-count // config.time_factor)
    filled = torch.cat([frames] + [frames[:, -1:]] * (groups * config.time_factor - count), 1)
    z, _ = model(config).encoder(frames)
    assert z.shape[1] == groups
    assert torch.equal(z, model(config).encoder(filled)[0])


@pytest.mark.parametrize(
    ("config", "time", "space", "latent", "frame"),
    [(WAN, 4, 8, (20, 32), (160, 256)), (PATCHED, 1, 16, (10, 16), (160, 256))],
)
def test_a_frame_of_160_by_256_has_the_latent_that_its_factors_say(
    config: LightTAEConfig, time: int, space: int, latent: tuple[int, int], frame: tuple[int, int]
) -> None:
    """Height first; the shipped world's latents are 10 x 16."""
    assert (config.time_factor, config.space_factor) == (time, space)
    z, _ = model(config).encoder(torch.zeros(1, time, 3, *frame))
    assert z.shape == (1, 1, config.latent_channels, *latent)
    frames, _ = model(config).decoder(z)
    assert frames.shape == (1, 1, 3, *frame)


def test_a_patch_keeps_pixels_where_they_are() -> None:
    """A change of one latent position reaches the pixels under it, and none that its convolutions cannot."""
    z = torch.zeros(1, 1, 4, 12, 12)
    altered = z.clone()
    altered[..., 2, 9] = 3.0
    change = (model(PATCHED).decoder(altered)[0] - model(PATCHED).decoder(z)[0]).abs().sum((0, 1, 2))
    rows, columns = change.amax(1).nonzero().flatten(), change.amax(0).nonzero().flatten()
    centre = (2 * 16 + 8, 9 * 16 + 8)
    assert abs(change.argmax() // change.shape[1] - centre[0]) <= 16
    assert abs(change.argmax() % change.shape[1] - centre[1]) <= 16
    assert rows.min() < centre[0] < rows.max() and columns.min() < centre[1] < columns.max()
