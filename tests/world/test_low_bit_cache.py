"""A cache in fp8: how far what is read is from the full one's, what a session keeps, what is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.engine.session import Session
from playhead.render.bench.precision import bench_precision
from playhead.scenes.scene import load_scene
from playhead.world import low_bit_cache
from playhead.world.action import Action
from playhead.world.errors import WorldError
from playhead.world.kv_cache import FarMemory, KVCache
from playhead.world.low_bit_cache import LIMITS, TILES, CacheReader, LowBitCache
from playhead.world.metrics import psnr
from playhead.world.offload.needs import session_bytes
from playhead.world.public import PUBLIC
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.size import cache_bytes
from playhead.world.world import World
from tests.command_line import ROOT
from tests.conftest import THOROUGH, make_tiny_context
from tests.played import record_play
from tests.world.offloading import budget_of, dream, make_world, same

SIZES = {"layers": 2, "batch": 1, "heads": 3, "frames": 5, "tokens": 4, "head_dim": 16}
NEAR = 0.06
"""Relative L1 distance of what is read: numbers of 3 bits after the first are up to 6 % off."""


def load(folder: Path | str, cache: str | None = "fp8", **how) -> World:
    return World.load(folder, "cpu", torch.float32, cache=cache, **how)


def test_the_kernels_read_and_write_what_their_twins_do() -> None:
    """With fp8 products too, whose own rounding is about as large as that of the keys and values."""
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.world.low_bit_cache_kernel"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    widened, products, exactly, rolling = map(float, done.stdout.split())
    assert max(widened, rolling) < 1e-3 and products < LIMITS[True] and exactly < 2e-6


@settings(max_examples=12 * THOROUGH)
@given(
    seed=st.integers(0, 2**32),
    sink=st.integers(0, 2),
    blocks=st.lists(st.integers(1, 2), min_size=1, max_size=6),
    flushed=st.integers(0, 6),
)
def test_what_is_read_is_near_what_a_full_cache_gives(
    seed: int, sink: int, blocks: list[int], flushed: int
) -> None:
    """With frames that fall out, a sink that is moved along, and a flush somewhere."""
    draw = torch.Generator().manual_seed(seed)
    full = KVCache(**SIZES, sink=sink, span=5)
    low = LowBitCache(**SIZES, sink=sink, span=5, reader=CacheReader())
    for number, count in enumerate(blocks):
        if number == flushed and full.length > sink:
            for cache in (full, low):
                cache.flush(cache.length)
        for layer in range(2):
            q, k, v = torch.randn((3, 1, 3, 4 * count, 16), generator=draw)
            if not layer:
                full.begin(count)
                low.begin(count)
            wanted, found = full.attend(layer, q, k, v), low.attend(layer, q, k, v)
            assert float((found - wanted).abs().sum() / wanted.abs().sum()) < NEAR
        for cache in (full, low):
            cache.end()
        assert low.graph_key == full.graph_key and low.length == full.length
    for layer in range(2):
        for one, other in zip(low.ordered(layer), full.ordered(layer), strict=True):
            assert one.shape == other.shape
            assert float((one - other).abs().sum() / other.abs().sum()) < NEAR


def test_a_snapshot_of_a_cache_with_scales_is_refused() -> None:
    """Taken for one without, its keys would be up to 448."""
    cache = LowBitCache(**SIZES, sink=0, reader=CacheReader())
    with pytest.raises(WorldError, match="has an fp8 cache with scales, as it was once kept; make a new one"):
        cache.load_state({**cache.state(), "k_scale": torch.ones(2, 1, 3, 0)})


def test_what_is_beyond_fp8_is_cut_off_and_what_is_no_number_stays_none() -> None:
    x = torch.tensor([1e4, -1e4, 448.0, 0.0156, float("nan")])
    found = low_bit_cache.rounded(x, torch.float8_e4m3fn).float()
    assert found[:3].tolist() == [448.0, -448.0, 448.0] and abs(found[3] - 0.0156) < 0.001
    assert bool(found[4].isnan())


def test_a_spare_slot_behind_a_far_memory_that_fills_is_not_read() -> None:
    far = FarMemory(frames=2, every=2, layers=(1,))
    plain, spare = (
        LowBitCache(**SIZES, sink=0, far=far, padded=True, spare=n, reader=CacheReader()) for n in (0, 1)
    )
    draw = torch.Generator().manual_seed(0)
    for _ in range(7):
        plain.begin(1), spare.begin(1)
        for layer in range(2):
            given = torch.randn((3, 1, 3, 4, 16), generator=draw)
            assert torch.equal(plain.attend(layer, *given), spare.attend(layer, *given))
        plain.end(), spare.end()
    assert plain.distant == 1


def test_a_state_that_is_taken_over_goes_on_bit_for_bit() -> None:
    one, other = (LowBitCache(**SIZES, sink=1, span=5, reader=CacheReader()) for _ in range(2))
    draw = torch.Generator().manual_seed(0)

    def go(caches, count: int) -> None:
        for _ in range(count):
            given = torch.randn((3, 1, 3, 4, 16), generator=draw)
            for cache in caches:
                cache.begin(1)
            first, *rest = [cache.attend(1, *given) for cache in caches]
            assert all(torch.equal(first, found) for found in rest)
            for cache in caches:
                cache.end()

    go([one], 9)
    other.load_state(one.state())
    go([one, other], 9)


@pytest.mark.parametrize("padded", [False, True])
def test_a_far_memory_is_low_bit_too_and_goes_on_bit_for_bit(padded: bool) -> None:
    """Read as it is, or under a mask while it fills, as where ticks are recorded."""
    far = FarMemory(frames=2, every=3, layers=(1,))
    full = KVCache(**SIZES, sink=0, far=far, padded=padded)
    low, again = (
        LowBitCache(**SIZES, sink=0, far=far, padded=padded, reader=CacheReader()) for _ in range(2)
    )
    draw = torch.Generator().manual_seed(0)
    for number in range(16):
        if number == 9:
            again.load_state(low.state())
        caches = (full, low, again) if number > 8 else (full, low)
        for cache in caches:
            cache.begin(1)
        for layer in range(2):
            given = torch.randn((3, 1, 3, 4, 16), generator=draw)
            wanted, found, *rest = [cache.attend(layer, *given) for cache in caches]
            assert float((found - wanted).abs().sum() / wanted.abs().sum()) < NEAR
            assert all(torch.equal(found, one) for one in rest)
        for cache in caches:
            cache.end()
    assert low.distant == 2


def test_it_takes_half_the_memory(tiny_world_folder: Path) -> None:
    state = load(tiny_world_folder).new_state()
    held = [state.cache.k, state.cache.v]
    config = load(tiny_world_folder).config
    assert sum(t.numel() * t.element_size() for t in held) == cache_bytes(config, 4, low_bit=True)
    for entry in PUBLIC.values():
        assert cache_bytes(entry.config, 2, low_bit=True) <= 0.51 * cache_bytes(entry.config, 2)
        assert session_bytes(entry.config, 2, 1, True) < session_bytes(entry.config, 2)


def test_frames_are_near_those_of_a_full_cache_and_other_ones(tiny_world_folder: Path) -> None:
    sessions = [Session(load(tiny_world_folder, kind), make_tiny_context(), 5) for kind in (None, "fp8")]
    for _ in range(4):
        full, low = (session.step(Action(frozenset({"forward"}))) for session in sessions)
        assert not np.array_equal(full, low)
        assert float(psnr(torch.from_numpy(full), torch.from_numpy(low)).mean()) > 25


def test_snapshots_forks_and_returns_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    for name in ("sgf", "matrix-game-2"):
        config = random_world(name, small=True)
        save_world_config(config)
        session = Session(load(config.name), random_context(config), 5)
        for _ in range(3):
            session.step(Action())
        kept, twin = session.snapshot(), session.fork()
        first = [session.step(Action()) for _ in range(5)]
        assert all(np.array_equal(frames, twin.step(Action())) for frames in first)
        session.restore(kept)
        assert all(np.array_equal(frames, session.step(Action())) for frames in first)


def test_it_goes_with_offload_and_fused_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    folder, config = make_world("causal-forcing")
    wanted = dream(load(folder))
    assert same(dream(load(folder, budget=budget_of(config, 5))), wanted)
    fused = load(folder)
    fused._flow.fuse()
    plain, latents = wanted[-1], dream(fused)[-1]
    assert np.abs(plain - latents).mean() < 0.05 * np.abs(plain).mean()


def test_a_recording_names_it_and_another_is_told_in_a_sentence(
    tiny_world_folder: Path, tmp_path: Path
) -> None:
    low, full = load(tiny_world_folder), load(tiny_world_folder, None)
    record_play(tmp_path / "low.playhead", low)
    kept = Recording.read(tmp_path / "low.playhead")
    assert verify(kept, low) is None
    found = verify(kept, full)
    assert found is not None and found.causes == [
        "the cache's precision (recorded fp8 without scales, here full)"
    ]


def test_the_fastest_right_kernel_is_taken_and_remembered_as_long_as_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    fast, faster, wrong = TILES[4], TILES[2], TILES[7]
    seconds = {fast: 0.002, faster: 0.001}
    asked = []

    def measure(tile, given, timed=True):
        asked.append(tile)
        assert timed or len(asked) == 1, "what is remembered is compared again, first, and not timed"
        return tile, seconds.get(tile), "" if tile in seconds else f"{tile} is wrong"

    monkeypatch.setattr(low_bit_cache, "_measure", measure)
    monkeypatch.setattr(low_bit_cache, "_draw", lambda *given: ())
    monkeypatch.setattr(low_bit_cache, "_key", lambda *given: "a card")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def choose() -> CacheReader:
        asked.clear()
        return low_bit_cache.choose_reader(random_world("sgf"), 6, torch.device("cuda"), torch.bfloat16)

    assert choose().tile == faster and set(asked) == set(TILES)
    assert choose().tile == faster and asked == [faster]
    del seconds[faster]
    assert choose().tile == fast and asked[0] == faster and set(asked) == set(TILES)
    seconds.clear()
    assert choose().tile is None and wrong in asked
    assert "widened in every read, which is slower than without" in caplog.text


def test_what_cannot_be_had_is_refused_in_a_sentence(tiny_world_folder: Path) -> None:
    with pytest.raises(WorldError, match="there is no cache `fp4`; there is fp8, or leave it out"):
        load(tiny_world_folder, "fp4")
    with pytest.raises(WorldError, match="is read by a kernel of its own; leave out --attention math"):
        load(tiny_world_folder, attention="math")


def test_a_comparison_says_what_it_costs_and_saves(tiny_world_folder: Path, tiny_scene: Path) -> None:
    scene = load_scene(str(tiny_scene))
    found = bench_precision(str(tiny_world_folder), "cpu", None, 3, replace(scene), "fp8")
    lines = {line[:13].strip(): line[14:] for line in found.lines()}
    assert "fp8 cache" in lines["world"] and found.caches[1] < 0.65 * found.caches[0]
    assert "nvidia gpus alone, and this is cpu" in lines["cache read"].lower()
    assert len(found.psnr) == 3 and min(found.psnr) > 25 and not found.layers
