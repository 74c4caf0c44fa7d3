"""What is laid out for a CPU computes what it was laid out from, to rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor

from playhead.engine.session import Session
from playhead.world import packed
from playhead.world.action import Action
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import KVCache
from playhead.world.lighttae import Decoder, LightTAEConfig
from playhead.world.packed_decoder import PackedDecoder
from playhead.world.packed_generator import REMEMBERED, PackedGenerator
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world

pytestmark = pytest.mark.skipif(
    not packed.available(torch.float32), reason="this torch has no kernels that take packed weights"
)
CONFIG = LightTAEConfig(
    latent_channels=8,
    patch=4,
    decoder_widths=(24, 16, 8, 8),
    decoder_space=(True, True, False),
    decoder_time=(False, False, False),
)


def decoder(config: LightTAEConfig = CONFIG) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(config).requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.mul_(2)  # else all is grey
    return model


def levels(pixels: Tensor) -> Tensor:
    """Frames `(N, 1, 3, H, W)` as uint8 values `(N, H, W, 3)`, int."""
    return pixels[:, 0].clamp(0, 1).mul(255).round().int().permute(0, 2, 3, 1)


@pytest.mark.parametrize("count", [1, 3])
def test_a_packed_decoder_streams_the_same_frames(count: int) -> None:
    plain = decoder()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fast = PackedDecoder(plain, 3, 5)
    draw = torch.Generator().manual_seed(1)
    _, memory = plain(torch.randn(count, 1, 8, 3, 5, generator=draw))
    for _ in range(4):
        z = torch.randn(count, 1, 8, 3, 5, generator=draw)
        pixels, following = plain(z, memory)
        frames, own = fast(z[:, 0], fast.ahead(memory))
        assert frames.dtype == torch.uint8 and frames.shape == (count, 48, 80, 3)
        assert levels(pixels).float().std() > 5
        assert (frames.int() - levels(pixels)).abs().max() <= 1
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own, following, strict=True))
        memory = following
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


def test_a_packed_decoder_makes_one_frame_of_a_latent() -> None:
    with pytest.raises(ValueError, match="one frame"):
        PackedDecoder(Decoder(LightTAEConfig()), 3, 5)


def generator(**fields: object) -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        dim=48, heads=2, layers=3, ffn_dim=80, in_channels=8, out_channels=4, buttons=3, labels=2,
        predicts="change", **fields,
    )  # fmt: skip
    model = Generator(config).requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.5)
    model.join()
    return model


def cache(batch: int) -> KVCache:
    return KVCache(layers=3, batch=batch, heads=2, frames=6, sink=0, tokens=6, head_dim=24)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_a_packed_generator_finds_the_same_flow(batch: int, frames: int) -> None:
    plain = generator()
    fast = PackedGenerator(plain, 6 * frames)
    draw = torch.Generator().manual_seed(1)
    caches = cache(batch), cache(batch)
    for block in range(4):
        x = torch.randn(batch, frames, 8, 4, 6, generator=draw)
        levels = torch.randint(1, 1001, (batch, frames), generator=draw).float()
        told = torch.randint(0, 2, (batch, frames, 5), generator=draw).float()
        table = plain.rope_table(range(block * frames, (block + 1) * frames), 4, 6)
        for memory in caches:
            memory.begin(frames)
        flows = [run(x, levels, table, c.attend, told) for run, c in zip((plain, fast), caches, strict=True)]
        for memory in caches:
            memory.end()
        assert torch.allclose(*flows, atol=1e-4, rtol=1e-4)
        assert torch.allclose(caches[0].k, caches[1].k, atol=1e-5)
        assert torch.allclose(caches[0].v, caches[1].v, atol=1e-5)


def test_what_is_kept_of_levels_and_actions_changes_nothing_and_has_an_end() -> None:
    plain = generator()
    fast, memory = PackedGenerator(plain, 6), cache(1)
    memory.begin(1)
    x, table = torch.randn(1, 1, 8, 4, 6), plain.rope_table([0], 4, 6)

    def run(level: float) -> Tensor:
        return fast(x, torch.tensor([[level]]), table, memory.attend, torch.ones(1, 1, 5))

    first = run(1.0)
    for level in range(2, REMEMBERED + 20):
        run(float(level))
        assert len(fast._kept) <= REMEMBERED
    assert torch.equal(first, run(1.0)) and torch.equal(first, run(1.0))
    assert not torch.equal(first, run(2.0))


def test_a_generator_with_a_context_is_not_packed() -> None:
    text = GeneratorConfig(dim=8, heads=2, layers=1, ffn_dim=8, in_channels=4, out_channels=4, text_dim=4)
    with pytest.raises(ValueError, match="context"):
        PackedGenerator(Generator(text), 4)


def played(session: Session, ticks: int, seed: int = 0) -> list[np.ndarray]:
    """Frames under buttons drawn from `seed`."""
    draw = np.random.default_rng(seed)
    return [session.step(Action(frozenset(draw.choice(BUTTONS, 2).tolist()))) for _ in range(ticks)]


def test_a_world_of_one_pass_is_packed_and_plays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = make_tiny_world(one_pass=True, steps=(1000.0,))
    monkeypatch.setattr(packed, "available", lambda dtype: False)
    plain = make_tiny_world(one_pass=True, steps=(1000.0,))
    assert (fast._decoder is not None, plain._decoder is not None) == (True, False)
    frames, same = (played(Session(world, make_tiny_context(), 5), 30) for world in (fast, plain))
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(frames, same, strict=True)) <= 2


def test_a_world_that_commits_by_a_pass_of_its_own_is_not_packed() -> None:
    world = make_tiny_world()
    assert world._decoder is None and world._passes == world.generators


@pytest.fixture(scope="module")
def one_pass() -> World:
    return make_tiny_world(one_pass=True, steps=(1000.0,))


@pytest.mark.parametrize("finished", [True, False])
def test_a_snapshot_goes_on_bit_for_bit_whatever_was_computed_ahead(one_pass: World, finished: bool) -> None:
    session = Session(one_pass, make_tiny_context(), 5)
    played(session, 20)
    if finished:
        session.finish()
    snapshot = session.snapshot()
    assert not any("ahead" in key for key in snapshot.state)
    on = played(session, 10, 1)
    session.restore(snapshot)
    again = played(session, 10, 1)
    fork = Session.unstarted(one_pass, make_tiny_context())
    fork.restore(snapshot)
    over = played(fork, 10, 1)
    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(on, again, over, strict=True))


def test_another_beginning_knows_nothing_of_what_was_computed_ahead(one_pass: World) -> None:
    session = Session(one_pass, make_tiny_context(), 5)
    first = played(session, 10)
    session.finish()
    session.reset()
    assert all(np.array_equal(a, b) for a, b in zip(first, played(session, 10), strict=True))
