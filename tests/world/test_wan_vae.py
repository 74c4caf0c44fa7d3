"""Wan's VAE in any width: a stream is the same video as the whole clip, whatever way it is cut."""

from functools import cache
from itertools import accumulate
from math import prod

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.causal_layers import Past
from playhead.world.lighttae import Memory
from playhead.world.wan_vae import CHANNELS, SPAN, WIDTH, WanDecoder, WanEncoder, WanVAE

CPU = torch.device("cpu")
modest = settings(max_examples=10, deadline=None)
splits = st.lists(st.integers(1, 3), min_size=1, max_size=4)
seeds = st.integers(0, 2**32)
HEIGHT, WIDE = 2, 3
"""Of the latents."""


@cache
def vae(dtype: torch.dtype = torch.float32) -> WanVAE:
    """Of width 4; in any number type the same but for rounding."""
    with checkpoint.without_memory():
        model = WanVAE(4)
    checkpoint.fill_randomly(model, 0, CPU, torch.float64)
    return acceleration.channels_innermost(model.requires_grad_(False), CPU, dtype)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents(seed: int, count: int, n: int = 1) -> Tensor:
    return normal(seed, n, count, CHANNELS, HEIGHT, WIDE)


def cut(x: Tensor, sizes: list[int]) -> list[Tensor]:
    return [x[:, end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def streamed(
    parts: list[Tensor], memory: Memory | None = None, of: WanVAE | None = None
) -> tuple[Tensor, Memory]:
    decoder, found = WanDecoder(of or vae()), []
    for part in parts:
        frames, memory = decoder(part, memory)
        found.append(frames)
    assert memory is not None
    return torch.cat(found, 1), memory


@modest
@given(splits, seeds)
def test_a_stream_in_any_split_is_the_clip_that_goes_through_all_layers_at_once(
    sizes: list[int], seed: int
) -> None:
    """In float64, which leaves no rounding to hide behind."""
    z, exact = latents(seed, sum(sizes)).double(), vae(torch.float64)
    past = Past(None)
    whole = exact.decoder(exact.conv2(z.transpose(1, 2), past), past).transpose(1, 2)
    frames, memory = streamed(cut(z, sizes), of=exact)
    assert torch.allclose(frames * 2 - 1, whole, atol=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(memory, past.after, strict=True))


@modest
@given(splits, seeds)
def test_however_a_stream_is_cut_it_is_equal_to_the_last_bit(sizes: list[int], seed: int) -> None:
    z = latents(seed, sum(sizes))
    (first, kept), (second, others) = streamed(cut(z, sizes)), streamed([z])
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(kept, others, strict=True))


def test_a_streams_first_latent_is_one_frame_and_each_later_one_four() -> None:
    memory: Memory | None = None
    for count, frames in ((1, 1), (1, 4), (3, 12)):
        shown, memory = streamed([latents(0, count)], memory)
        assert shown.shape == (1, frames, 3, 8 * HEIGHT, 8 * WIDE)
    assert streamed([latents(0, 3)])[0].shape[1] == 9


@modest
@given(seeds, st.integers(1, 4))
def test_a_latent_changes_no_frame_before_its_own(seed: int, at: int) -> None:
    z = latents(seed, 6)
    altered = z.clone()
    altered[:, at] += 1
    a, b = streamed([z])[0], streamed([altered])[0]
    first = 4 * at - 3
    assert torch.equal(a[:, :first], b[:, :first])
    assert not torch.equal(a[:, first], b[:, first])


def test_a_stream_can_go_on_twice_from_the_same_memory() -> None:
    """Snapshots hold memories: decoding must read them and never write to them."""
    _, memory = streamed([latents(1, 2)])
    kept = [past.clone() for past in memory]
    first, _ = streamed([latents(2, 2)], memory)
    streamed([latents(3, 1)], memory)
    assert torch.equal(first, streamed([latents(2, 2)], memory)[0])
    assert all(torch.equal(a, b) for a, b in zip(kept, memory, strict=True))


def test_a_memory_is_forgotten_after_the_span_and_not_before() -> None:
    """What seeks decode so many ticks before a moment and no more; the least of positions do for that."""
    z = normal(4, 1, SPAN + 2, CHANNELS, 1, 1)
    _, memory = streamed([normal(5, 1, 2, CHANNELS, 1, 1)])
    other = [normal(6, *past.shape) for past in memory]
    a, b = streamed([z], memory)[0], streamed([z], other)[0]
    apart = (a != b).flatten(2).any(-1)[0]
    assert apart[4 * (SPAN - 1)] and not apart[4 * SPAN :].any()


def test_clips_of_a_batch_do_not_mix() -> None:
    z, exact = latents(5, 3, n=2).double(), vae(torch.float64)
    together, memory = streamed([z], of=exact)
    later, _ = streamed([z], memory, exact)
    for i in range(2):
        alone, past = streamed([z[i : i + 1]], of=exact)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-10)
        assert torch.allclose(later[i : i + 1], streamed([z[i : i + 1]], past, exact)[0], atol=1e-10)
    assert all(len(part) == 2 for part in memory)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_both_ways_of_a_convolution_over_time_are_one(dtype: torch.dtype) -> None:
    """A CPU folds time into channels in float32 alone; in others the frames are as near as rounding lets."""
    z, clip = latents(7, 3), normal(8, 1, 9, 3, 16, 24).sigmoid()
    folded, other = vae(), vae(dtype)
    limit = 1e-5 if dtype == torch.float64 else 0.05
    for wanted, found in (
        (WanDecoder(folded)(z)[0], WanDecoder(other)(z.to(dtype))[0]),
        (WanEncoder(folded)(clip), WanEncoder(other)(clip.to(dtype))),
    ):
        assert found.dtype == dtype
        assert (found.float() - wanted).abs().mean() < limit * wanted.abs().mean()


@modest
@given(st.integers(1, 14), seeds)
def test_the_encoder_makes_a_latent_of_the_first_frame_and_of_every_four_after_it(
    count: int, seed: int
) -> None:
    """What is left over makes none, and changes none."""
    clip = normal(seed, 1, count, 3, 8 * HEIGHT, 8 * WIDE).sigmoid()
    encoder, clip = WanEncoder(vae(torch.float64)), clip.double()
    found = encoder(clip)
    assert found.shape == (1, 1 + (count - 1) // 4, CHANNELS, HEIGHT, WIDE)
    whole = 1 + (count - 1) // 4 * 4
    assert torch.equal(found, encoder(clip[:, :whole]))
    past = Past(None)
    at_once = encoder.conv1(encoder.encoder(clip[:, :whole].transpose(1, 2) * 2 - 1, past), past)
    assert torch.allclose(found, at_once[:, :CHANNELS].transpose(1, 2), atol=1e-10)


def test_neither_pixels_nor_latents_are_written_to() -> None:
    z, clip = latents(9, 2), normal(9, 1, 5, 3, 16, 24).sigmoid()
    before = z.clone(), clip.clone()
    WanDecoder(vae())(z)
    WanEncoder(vae())(clip)
    assert torch.equal(z, before[0]) and torch.equal(clip, before[1])


@pytest.mark.parametrize(("width", "parameters"), [(WIDTH, 126_892_531), (24, 8_035_003)])
def test_keys_are_those_of_the_public_files(width: int, parameters: int) -> None:
    """diffusers, which renames those of `Wan2.1_VAE.pth`, finds each and its shape; no weight is drawn."""
    with checkpoint.without_memory():
        ours = dict(WanVAE(width).state_dict())
        theirs = diffusers.AutoencoderKLWan(base_dim=width).state_dict()
    shapes = {key: tuple(t.shape) for key, t in ours.items()}
    assert (len(shapes), sum(map(prod, shapes.values()))) == (194, parameters)
    assert shapes["decoder.middle.0.residual.0.gamma"] == (4 * width, 1, 1, 1)
    assert shapes["decoder.upsamples.3.time_conv.weight"] == (8 * width, 4 * width, 3, 1, 1)
    assert shapes["encoder.downsamples.5.time_conv.weight"] == (2 * width, 2 * width, 3, 1, 1)
    renamed = convert_wan_vae_to_diffusers(ours)
    assert {k: tuple(t.shape) for k, t in renamed.items()} == {k: tuple(t.shape) for k, t in theirs.items()}
