"""One pass over a doubled sequence computes what play computes tick by tick with its rolling cache."""

from functools import cache
from typing import NamedTuple

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.conftest import BUTTONS, make_tiny_world
from world.generator import Generator
from world.kv_cache import KVCache
from world.noise import noise
from world.sampler import Schedule
from world.training.generator import GeneratorTraining, Trainer
from world.training.sequence import masked_attend, visible
from world.world import World

SIDE, TOKENS = 4, 4  # latents of 4 x 4 in patches of 2 x 2
CPU = torch.device("cpu")
modest = settings(max_examples=30, deadline=None)


class Clip(NamedTuple):
    """What one pass of training gets: contexts and targets, their levels, and the actions that led there."""

    contexts: Tensor
    context_levels: Tensor
    targets: Tensor
    levels: Tensor
    actions: Tensor


def make_clip(frames: int, seed: int, batch: int = 2) -> Clip:
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn((2, batch, frames, 8, SIDE, SIDE), generator=draw)
    levels = torch.rand((2, batch, frames), generator=draw)
    actions = torch.randint(0, 2, (batch, frames, len(BUTTONS)), generator=draw).float()
    return Clip(latents[0], 0.5 * levels[0], latents[1], levels[1], actions)


@cache
def generator(layers: int = 2) -> Generator:
    """A tiny generator of up to two layers, every weight of which counts."""
    whole = make_tiny_world().generator
    model = Generator(msgspec.structs.replace(whole.config, layers=layers)).requires_grad_(False)
    kept = model.state_dict().keys()
    model.load_state_dict({key: weight for key, weight in whole.state_dict().items() if key in kept})
    return model


def trainer(frames: int, window: int, layers: int = 2) -> Trainer:
    """What trains `generator`, in float32."""
    model = generator(layers)
    made = Trainer(
        model.config, GeneratorTraining(length=frames), Schedule((1.0,)), window, (SIDE, SIDE), CPU
    )
    made.model.load_state_dict(model.state_dict())
    made.autocast = False
    return made


@torch.no_grad()
def train_pass(clip: Clip, window: int, layers: int = 2) -> Tensor:
    """The flow of all targets, as training computes it: `(B, F, C, h, w)`."""
    return trainer(clip.targets.shape[1], window, layers).predict(*clip)


@torch.no_grad()
def play_pass(clip: Clip, window: int) -> Tensor:
    """The same as play would: for each frame a denoise pass of its target, then the commit of its context."""
    model = generator()
    g = model.config
    batch, frames = clip.levels.shape
    memory = KVCache(
        layers=g.layers,
        batch=batch,
        heads=g.heads,
        frames=window,
        sink=0,
        tokens=TOKENS,
        head_dim=g.head_dim,
        span=window,
    )
    flows = []
    for frame in range(frames):
        now = slice(frame, frame + 1)
        for x, levels in (
            (clip.targets, clip.levels),
            (clip.contexts, clip.context_levels),
        ):
            memory.begin(1)
            cos_sin = model.rope_table([memory.length], SIDE, SIDE)
            flows.append(
                model(x[:, now], 1000 * levels[:, now], cos_sin, memory.attend, clip.actions[:, now])
            )
        memory.end()
        flows.pop()  # what a commit predicts is not used
    return torch.cat(flows, 1)


@modest
@given(frames=st.integers(2, 14), window=st.integers(2, 8), seed=st.integers(0, 2**32))
def test_a_target_is_computed_as_play_computes_it(frames: int, window: int, seed: int) -> None:
    """Every frame, whatever the window, the levels of noise in its past, and how often the ring turned."""
    clip = make_clip(frames, seed)
    assert torch.allclose(train_pass(clip, window), play_pass(clip, window), atol=1e-5, rtol=1e-5)


def test_this_comparison_would_notice_a_window_off_by_one() -> None:
    clip = make_clip(10, 0)
    for window in (3, 5):
        difference = train_pass(clip, window) - play_pass(clip, 4)
        assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("window", [2, 5, 9])
@pytest.mark.parametrize("context_noise", [0.0, 60.0])
def test_a_world_dreams_what_its_trainer_predicts(window: int, context_noise: float) -> None:
    """End to end: `World.denoise` after the real past, its actions and its noise, in one denoise step."""
    world = make_tiny_world()
    sampling = msgspec.structs.replace(
        world.config.sampling, window=window, steps=(800.0,), context_noise=context_noise
    )
    world = World(
        msgspec.structs.replace(world.config, sampling=sampling), world.generator, world.autoencoder
    )
    sigma = world.schedule(1).sigmas[0]
    frames = 12
    real = make_clip(frames, 3, batch=1)
    starts = torch.stack([noise(7, tick, 0, (1, 8, SIDE, SIDE)) for tick in range(frames)], 1)
    clip = real._replace(
        context_levels=torch.full((1, frames), context_noise / 1000),
        targets=starts,
        levels=torch.full((1, frames), sigma),
    )
    wanted = starts - sigma * train_pass(clip, window)

    state = world.new_state()
    for tick in range(frames):
        now = slice(tick, tick + 1)
        world.denoise(state, real.actions[:, now], [7], tick)
        assert torch.allclose(state.latent, wanted[:, now], atol=1e-5)
        state.latent.copy_(real.contexts[:, now])
        world.commit(state)


@given(frames=st.integers(1, 30), window=st.integers(1, 12))
def test_a_frame_sees_the_window_that_play_would_give_it(frames: int, window: int) -> None:
    seen = visible(frames, window)
    assert seen.shape == (2 * frames, 2 * frames)
    for frame in range(frames):
        past = set(range(max(0, frame - window + 1), frame))
        assert set(seen[frame].nonzero().flatten().tolist()) == past | {frame}
        assert set(seen[frames + frame].nonzero().flatten().tolist()) == past | {frames + frame}


@given(frames=st.integers(2, 30), window=st.integers(1, 12))
def test_contexts_see_no_target_and_targets_see_no_other_target(frames: int, window: int) -> None:
    seen = visible(frames, window)
    assert not seen[:frames, frames:].any()
    assert torch.equal(seen[frames:, frames:], torch.eye(frames, dtype=torch.bool))
    assert not seen[:, :frames].triu(1)[:frames].any()
    assert not seen[frames:, :frames].triu().any()  # a target does not even see its own context copy


@given(frames=st.integers(1, 8), window=st.integers(1, 8), tokens=st.integers(1, 5))
@modest
def test_all_tokens_of_a_frame_see_alike(frames: int, window: int, tokens: int) -> None:
    """What attention lets through, token by token, is `visible`, frame by frame."""
    length = 2 * frames * tokens
    q = torch.zeros(1, 1, length, length)
    v = torch.eye(length)[None, None]  # a query then returns how much it sees of each key
    read = masked_attend(frames, window, tokens, CPU, fused=False)(0, q, q, v)[0, 0] > 0
    wanted = visible(frames, window)
    assert torch.equal(read, wanted.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("frames", "window", "tokens"), [(6, 3, 4), (24, 16, 10), (9, 12, 7)])
def test_the_kernel_of_a_gpu_lets_through_the_same(
    frames: int, window: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flex attention with its block mask, here not compiled, against the plain mask."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    q, k, v = torch.randn((3, 2, 2, 2 * frames * tokens, 16), generator=torch.Generator().manual_seed(0))
    plain, fused = (masked_attend(frames, window, tokens, CPU, fused=way) for way in (False, True))
    assert torch.allclose(plain(0, q, k, v), fused(0, q, k, v), atol=1e-5)


def changed_targets(before: Clip, after: Clip, window: int, layers: int = 2) -> set[int]:
    """The targets whose flow is not the same, bit for bit."""
    flows = train_pass(before, window, layers), train_pass(after, window, layers)
    return {t for t in range(flows[0].shape[1]) if not torch.equal(flows[0][:, t], flows[1][:, t])}


def with_other(clip: Clip, field: str, frame: int) -> Clip:
    """The clip with one frame of one of its parts replaced."""
    part = getattr(clip, field).clone()
    part[:, frame] = 1 - part[:, frame]
    return clip._replace(**{field: part})


@modest
@given(frame=st.integers(0, 9), field=st.sampled_from(["targets", "levels"]))
def test_what_a_target_is_changes_its_own_flow_alone(frame: int, field: str) -> None:
    clip = make_clip(10, 1)
    assert changed_targets(clip, with_other(clip, field, frame), window=4) == {frame}


@modest
@given(frame=st.integers(0, 9), field=st.sampled_from(["contexts", "context_levels"]))
def test_a_context_reaches_later_targets_only(frame: int, field: str) -> None:
    """Through one layer those of the next `window - 1` frames, through each further layer as many more."""
    clip = make_clip(10, 2)
    other = with_other(clip, field, frame)
    assert changed_targets(clip, other, 4, layers=1) == set(range(frame + 1, min(10, frame + 4)))
    assert changed_targets(clip, other, 4, layers=2) == set(range(frame + 1, min(10, frame + 7)))


@modest
@given(frame=st.integers(0, 9))
def test_an_action_counts_from_the_frame_it_led_to(frame: int) -> None:
    clip = make_clip(10, 3)
    changed = changed_targets(clip, with_other(clip, "actions", frame), window=4)
    assert changed == set(range(frame, min(10, frame + 7)))
