"""One pass over a causal sequence computes what play computes tick by tick with its rolling cache."""

from typing import Literal, NamedTuple

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.config import SamplingConfig
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import FarMemory, KVCache
from playhead.world.noise import noise
from playhead.world.past import PAST, prefill
from playhead.world.training.sequence import causal_attend, play_levels, shifted, visible
from playhead.world.training.train_generator import GeneratorTraining, Trainer
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_world
from tests.world.training.runs import CONFIG, CPU

SIDE, TOKENS = 4, 4  # latents of 4 x 4 in patches of 2 x 2
Predicts = Literal["flow", "clean", "change"]
modest = settings(max_examples=30, deadline=None)
fars = st.builds(FarMemory, frames=st.integers(1, 4), every=st.integers(1, 4), layers=st.just((1,)))
maybe_far = st.none() | fars


class Clip(NamedTuple):
    """What one pass gets: noisy latents, what came before each, their levels, and what led to them."""

    x: Tensor
    previous: Tensor
    levels: Tensor
    told: Tensor


def make_clip(frames: int, seed: int, batch: int = 2) -> Clip:
    draw = torch.Generator().manual_seed(seed)
    x, previous = torch.randn((2, batch, frames, 8, SIDE, SIDE), generator=draw)
    levels = 0.1 + 0.9 * torch.rand((batch, frames), generator=draw)
    told = torch.randint(0, 2, (batch, frames, len(BUTTONS)), generator=draw).float()
    return Clip(x, previous, levels, told)


def generator(layers: int = 2, predicts: Predicts = "clean") -> Generator:
    """A tiny generator of up to two layers, every weight of which counts."""
    whole = make_tiny_world(one_pass=True).generator
    config = msgspec.structs.replace(whole.config, layers=layers, predicts=predicts)
    model = Generator(config).requires_grad_(False)
    kept = model.state_dict().keys()
    model.load_state_dict({key: weight for key, weight in whole.state_dict().items() if key in kept})
    return model


MODELS = {layers: generator(layers) for layers in (1, 2)}


def with_memory(window: int, far: FarMemory | None) -> SamplingConfig:
    return msgspec.structs.replace(CONFIG.sampling, window=window, far=far)


def trainer(model: Generator, sampling: SamplingConfig) -> Trainer:
    """What trains `model`, in float32."""
    made = Trainer(model.config, sampling, GeneratorTraining(), (SIDE, SIDE), CPU, model=model)
    made.autocast = False
    return made


@torch.no_grad()
def train_pass(clip: Clip, window: int, far: FarMemory | None = None, layers: int = 2) -> Tensor:
    """The clean latents found of all frames, as training computes them: `(B, F, C, h, w)`."""
    return trainer(MODELS[layers], with_memory(window, far)).predict(*clip)


@torch.no_grad()
def play_pass(clip: Clip, window: int, far: FarMemory | None = None) -> Tensor:
    """The same as play would: a denoise pass for each frame, which commits it."""
    model = MODELS[2]
    g: GeneratorConfig = model.config
    batch, frames = clip.levels.shape
    memory = KVCache(
        layers=g.layers, batch=batch, heads=g.heads, frames=window, sink=0, tokens=TOKENS,
        head_dim=g.head_dim, span=window, far=far,
    )  # fmt: skip
    found = []
    for frame in range(frames):
        x, previous, levels, told = (part[:, frame : frame + 1] for part in clip)
        memory.begin(1)
        cos_sin = model.rope_table([memory.length], SIDE, SIDE)
        flow = model(torch.cat([x, previous], 2), 1000 * levels, cos_sin, memory.attend, told)
        memory.end()
        found.append(x - levels[:, :, None, None, None] * flow)
    return torch.cat(found, 1)


@modest
@given(frames=st.integers(2, 24), window=st.integers(2, 8), far=maybe_far, seed=st.integers(0, 2**32))
def test_a_frame_is_computed_as_play_computes_it(
    frames: int, window: int, far: FarMemory | None, seed: int
) -> None:
    """Every frame, whatever the window and the far memory, and how often their rings have turned."""
    clip = make_clip(frames, seed)
    assert torch.allclose(train_pass(clip, window, far), play_pass(clip, window, far), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("other", [(3, 2, 3), (5, 2, 3), (4, 1, 3), (4, 3, 3), (4, 2, 2), (4, 2, 4)], ids=str)
def test_this_comparison_would_notice_a_memory_off_by_one(other: tuple[int, int, int]) -> None:
    """In the window, in how many frames are far, and in every how many-th."""
    clip = make_clip(24, 0)
    window, frames, every = other
    there = train_pass(clip, window, FarMemory(frames, every, (1,)))
    assert (there - play_pass(clip, 4, FarMemory(2, 3, (1,)))).abs().max() > 1e-3


def test_this_comparison_would_notice_a_far_memory_in_another_layer() -> None:
    clip, far = make_clip(24, 0), FarMemory(2, 3, (1,))
    wrong = train_pass(clip, 4, msgspec.structs.replace(far, layers=(0,)))
    assert (wrong - play_pass(clip, 4, far)).abs().max() > 1e-3


@pytest.mark.parametrize("far", [None, FarMemory(3, 4, (1,)), FarMemory(1, 1, (0, 1))], ids=str)
@pytest.mark.parametrize("predicts", ["flow", "clean", "change"])
def test_a_world_dreams_what_its_trainer_predicts(far: FarMemory | None, predicts: Predicts) -> None:
    """End to end: a past that is taken in and ticks that are dreamed, in one denoise step each."""
    world = make_tiny_world(one_pass=True)
    before, ticks, seed = 9, 15, 7
    sampling = msgspec.structs.replace(world.config.sampling, steps=(800.0,), far=far)
    model = generator(predicts=predicts)
    config = msgspec.structs.replace(world.config, sampling=sampling, generator=model.config)
    world = World(config, generator(predicts=predicts), world.autoencoder)
    (sigma,) = world.schedule(1).sigmas
    clip = make_clip(before + ticks, 3, batch=1)
    # Latents dreamed before are latents known: what play makes of a past has to be what it makes of a tick.
    state = world.new_state()
    past = clip.x[:, :before]
    prefill(world, state, past, clip.told[:, :before], [seed])
    dreamed = []
    for tick in range(ticks):
        world.denoise(state, clip.told[:, before + tick, None], [seed], tick)
        dreamed.append(state.latent.clone())
        world.commit(state)
    clean = torch.cat([past, *dreamed], 1)
    numbers = [*range(PAST - before, PAST), *range(ticks)]
    fresh = torch.stack([noise(seed, number, 0, (1, 8, SIDE, SIDE)) for number in numbers], 1)
    mixed = (1 - sigma) * past + sigma * fresh[:, :before]
    x = torch.cat([mixed, fresh[:, before:]], 1)  # a tick begins at pure noise, a past is noised
    with torch.no_grad():
        levels = torch.full((1, before + ticks), sigma)
        found = trainer(model, sampling).predict(x, shifted(clean), levels, clip.told)
    assert torch.allclose(found[:, before:], clean[:, before:], atol=1e-4)


def by_definition(frame: int, window: int, far: FarMemory | None) -> set[int]:
    """What a frame sees: its window, and of every `every`-th frame that has left it the last few."""
    seen = set(range(max(0, frame - window + 1), frame + 1))
    if far is not None:
        gone = [k for k in range(frame - window + 1) if k % far.every == 0]
        seen |= set(gone[-far.frames :])
    return seen


@given(frames=st.integers(1, 40), window=st.integers(1, 12), far=maybe_far)
def test_a_frame_sees_what_play_would_let_it_see(frames: int, window: int, far: FarMemory | None) -> None:
    seen = visible(frames, window, far)
    assert seen.shape == (frames, frames)
    for frame in range(frames):
        assert set(seen[frame].nonzero().flatten().tolist()) == by_definition(frame, window, far)


def read(length: int, layer: int, sampling: SamplingConfig, frames: int, tokens: int) -> Tensor:
    """Which key each query of a layer reads, token by token."""
    q = torch.zeros(1, 1, length, length)
    v = torch.eye(length)[None, None]  # a query then returns how much it sees of each key
    return causal_attend(frames, sampling, tokens, CPU, fused=False)(layer, q, q, v)[0, 0] > 0


@given(frames=st.integers(1, 12), window=st.integers(1, 8), tokens=st.integers(1, 4), far=maybe_far)
@modest
def test_all_tokens_of_a_frame_see_alike_and_only_some_layers_see_far(
    frames: int, window: int, tokens: int, far: FarMemory | None
) -> None:
    """What attention lets through, token by token, is `visible`, frame by frame."""
    for layer in (0, 1):
        found = read(frames * tokens, layer, with_memory(window, far), frames, tokens)
        wanted = visible(frames, window, far if layer == 1 else None)
        assert torch.equal(found, wanted.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("frames", "window", "tokens", "far"),
    [(6, 3, 4, None), (24, 16, 10, None), (9, 12, 7, None), (30, 6, 5, FarMemory(3, 4, (1,)))],
)
def test_the_kernel_of_a_gpu_lets_through_the_same(
    frames: int, window: int, tokens: int, far: FarMemory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flex attention with its block mask, here not compiled, against the plain mask."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    q, k, v = torch.randn((3, 2, 2, frames * tokens, 16), generator=torch.Generator().manual_seed(0))
    plain, fused = (
        causal_attend(frames, with_memory(window, far), tokens, CPU, fused=way) for way in (False, True)
    )
    for layer in (0, 1):
        assert torch.allclose(plain(layer, q, k, v), fused(layer, q, k, v), atol=1e-5)


def changed(
    before: Clip, after: Clip, window: int, far: FarMemory | None = None, layers: int = 2
) -> set[int]:
    """The frames that come out otherwise, not the same bit for bit."""
    one, other = (train_pass(clip, window, far, layers) for clip in (before, after))
    return {t for t in range(one.shape[1]) if not torch.equal(one[:, t], other[:, t])}


def with_other(clip: Clip, field: str, frame: int) -> Clip:
    """The clip with one frame of one of its parts replaced."""
    part = getattr(clip, field).clone()
    part[:, frame] = 1.2 - part[:, frame]
    return clip._replace(**{field: part})


@modest
@given(frame=st.integers(0, 19), field=st.sampled_from(Clip._fields), far=maybe_far)
def test_a_later_frame_changes_no_earlier_one(frame: int, field: str, far: FarMemory | None) -> None:
    clip = make_clip(20, 1)
    found = changed(clip, with_other(clip, field, frame), 4, far)
    assert min(found) == frame


@modest
@given(frame=st.integers(0, 9), field=st.sampled_from(Clip._fields))
def test_a_frame_reaches_as_far_as_windows_do(frame: int, field: str) -> None:
    """Through one layer the next `window - 1` frames, through each further layer as many more."""
    clip = make_clip(10, 2)
    other = with_other(clip, field, frame)
    assert changed(clip, other, 4, layers=1) == set(range(frame, min(10, frame + 4)))
    assert changed(clip, other, 4, layers=2) == set(range(frame, min(10, frame + 7)))


@modest
@given(frame=st.integers(0, 29), far=fars)
def test_a_frame_that_left_the_window_is_seen_where_the_far_memory_holds_it(
    frame: int, far: FarMemory
) -> None:
    clip, window = make_clip(30, 2), 4
    far = msgspec.structs.replace(far, layers=(0,))
    found = changed(clip, with_other(clip, "x", frame), window, far, layers=1)
    assert found == {t for t in range(30) if frame in by_definition(t, window, far)}


def test_what_came_before_is_the_latent_before_and_nothing_at_first() -> None:
    z = torch.randn(2, 5, 8, SIDE, SIDE)
    before = shifted(z)
    assert not before[:, 0].any() and torch.equal(before[:, 1:], z[:, :-1])


@pytest.mark.parametrize("steps", [1, 2])
def test_the_levels_of_training_are_those_of_play(steps: int) -> None:
    world = make_tiny_world(one_pass=True)
    one, two = play_levels(world.config.sampling, (1, 2))
    assert world.schedule(steps).sigmas == (one, two)[steps - 1]
