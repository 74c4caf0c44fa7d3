"""Sparse attention through the cache: what a rule names is attended to, exactly and wherever slots are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.session import Session
from playhead.main import main
from playhead.world import attention_check, sparse_attention
from playhead.world.action import Action
from playhead.world.attention import BACKENDS
from playhead.world.attention_check import LIMIT, choose_backend, draw_inputs, measure_sparse
from playhead.world.config import load_config
from playhead.world.context import Context
from playhead.world.errors import WorldError
from playhead.world.kv_cache import KVCache
from playhead.world.randomise import random_world
from playhead.world.sparse_attention import FRACTIONS, SPARSE
from playhead.world.sparse_rules import FAR, HeldSlots
from playhead.world.world import World
from tests.command_line import ROOT
from tests.conftest import make_tiny_context, make_tiny_world, save_world
from tests.world.caches import HEAD_DIM, HEADS, TOKENS, Shape, cache_of, modest, play, same, shapes
from tests.world.game import write_footage
from tests.world.measuring import LENGTH

CPU = torch.device("cpu")
CONFIG = random_world("self-forcing", small=True)


def test_the_kernel_computes_what_its_twin_does() -> None:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.world.sparse_kernel"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout)
    assert errors.keys() == set(SPARSE)
    assert max(errors.values()) < 2e-6, errors


def sparse_cache(shape: Shape, backend: str, span: int | None = None) -> KVCache:
    cache = cache_of(shape, span)
    cache.backend = backend
    return cache


@modest
@given(shapes(least_blocks=3), st.sampled_from(SPARSE), st.integers(0, 99))
def test_a_ring_reads_what_frames_in_order_would(shape: Shape, backend: str, seed: int) -> None:
    """Its slots are in another order than its frames; the rule must not see that."""
    cache = sparse_cache(shape, backend)
    play(cache, shape.blocks[:-1], shape.seed)
    count = shape.blocks[-1]
    q, k, v = torch.randn((3, 1, HEADS, count * TOKENS, HEAD_DIM), generator=torch.manual_seed(seed))
    cache.begin(count)
    for layer in range(2):
        found = cache.attend(layer, q, k, v)
        window = cache.held_slots(layer)
        keys, values = cache.held(layer)
        frames = sorted(range(len(window.places)), key=lambda slot: window.places[slot])
        tokens = torch.cat([torch.arange(f * TOKENS, (f + 1) * TOKENS) for f in frames])
        far = window.places.count(FAR)
        places = [FAR] * far + list(range(len(frames) - far))
        own = tuple(range(len(frames) - count, len(frames)))
        in_order = HeldSlots(TOKENS, tuple(places), own, window.frames)
        wanted = sparse_attention.sparse_attention(
            q, keys[:, :, tokens], values[:, :, tokens], backend, in_order
        )
        torch.testing.assert_close(found, wanted)


@modest
@given(shapes(least_blocks=2))
def test_the_places_of_slots_are_the_order_of_their_frames(shape: Shape) -> None:
    """Whatever is in a slot: keys that tell their own frame stand where the window says."""
    cache = cache_of(shape._replace(steady=False))  # as whoever reads by a rule has it
    for count in shape.blocks:
        cache.begin(count)
        stamps = torch.arange(cache.length, cache.length + count).repeat_interleave(TOKENS)[:, None]
        block = stamps.expand(1, HEADS, -1, HEAD_DIM).float()
        for layer in range(2):
            cache.put(layer, block, block)
            window = cache.held_slots(layer)
            frames = cache.held(layer)[0][0, 0, ::TOKENS, 0].tolist()
            near = sorted((p, f) for p, f in zip(window.places, frames, strict=True) if p != FAR)
            assert [p for p, _ in near] == list(range(len(near)))
            assert [f for _, f in near] == sorted(f for _, f in near)
            assert [frames[slot] for slot in window.own] == list(range(cache.length, cache.length + count))
            assert all(f < near[0][1] for p, f in zip(window.places, frames, strict=True) if p == FAR)
        cache.end()


@modest
@given(shapes(least_blocks=2), st.booleans())
def test_places_hang_on_what_graphs_are_recorded_by_alone(shape: Shape, endless: bool) -> None:
    cache = cache_of(shape, shape.frames if endless else None)
    known: dict[tuple[int, ...], tuple[HeldSlots, HeldSlots]] = {}
    for count in shape.blocks * 3:
        cache.begin(count)
        windows = cache.held_slots(0), cache.held_slots(1)
        assert known.setdefault(cache.graph_key, windows) == windows
        cache.end()


@modest
@given(shapes(), st.sampled_from(SPARSE), st.integers(1, 4))
def test_a_restored_cache_goes_on_bit_for_bit(shape: Shape, backend: str, more: int) -> None:
    cache = sparse_cache(shape, backend)
    play(cache, shape.blocks, shape.seed)
    state = cache.state()
    blocks = [shape.blocks[-1]] * more
    first = play(cache, blocks, shape.seed + 1)
    for other in (cache, sparse_cache(shape, backend)):
        other.load_state(state)
        assert same(play(other, blocks, shape.seed + 1), first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world whose second layer has a far memory, on disk."""
    return save_world(make_tiny_world(one_pass=True), tmp_path_factory.mktemp("sparse") / "tiny")


def steps(session: Session, count: int) -> list[np.ndarray]:
    return [session.step(Action(frozenset({"forward"} if i % 3 else {"attack"}))) for i in range(count)]


@pytest.mark.parametrize("backend", SPARSE)
def test_forks_and_replays_are_exact(backend: str, folder: Path) -> None:
    world = World.load(folder, "cpu", torch.float32, attention=backend)
    context: Context = make_tiny_context()
    session = Session(world, context, 5)
    first = steps(session, 15)
    kept, twin = session.snapshot(), session.fork()
    on = steps(session, 12)
    assert all(map(np.array_equal, on, steps(twin, 12)))
    session.restore(kept)
    assert all(map(np.array_equal, on, steps(session, 12)))
    again = steps(Session(World.load(folder, "cpu", torch.float32, attention=backend), context, 5), 15)
    assert all(map(np.array_equal, first, again))
    dense = steps(Session(World.load(folder, "cpu", torch.float32), context, 5), 15)
    assert not all(map(np.array_equal, first, dense)), "a rule that leaves nothing out proves nothing"


def test_none_is_taken_by_itself_and_each_may_be_asked_for() -> None:
    assert not set(SPARSE) & set(BACKENDS)
    for backend in SPARSE:
        choice = choose_backend(CONFIG, 24, CPU, torch.float32, backend)
        assert choice.backend == backend
        assert "of keys that it reads (" in choice.findings[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_says_what_is_read_and_what_is_lost(dtype: torch.dtype) -> None:
    given = draw_inputs(CONFIG, 24, CPU, dtype)
    found = [measure_sparse(*given, backend, 24) for backend in FRACTIONS]
    assert all(report.right for report in found)
    shares = [report.share for report in found]  # three frames of their own, and part of eighteen
    assert shares == pytest.approx([(3 + 18 * f) / 21 for f in FRACTIONS.values()], abs=0.01)
    lost = [report.lost for report in found if report.lost is not None]
    assert lost == sorted(lost, reverse=True) and lost[0] > 0.1


def test_a_wrong_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads a tile less than its rule names."""

    def wrong(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: object) -> torch.Tensor:
        return sparse_attention.sparse_attention(q, k, v, "hierarchical25", rest[1])  # type: ignore[arg-type]

    monkeypatch.setattr(attention_check, "sparse_attention", wrong)
    finding = measure_sparse(*draw_inputs(CONFIG, 24, CPU, torch.float32), "hierarchical50", 24)
    assert finding.error > LIMIT and not finding.right
    with pytest.raises(WorldError, match="--attention hierarchical50 is refused here"):
        choose_backend(CONFIG, 24, CPU, torch.float32, "hierarchical50")


def test_bench_attention_prints_error_and_speed_against_dense(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "attention", "--world", str(folder), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sparse ")]
    assert {line.split()[1].rstrip(":") for line in lines} == set(SPARSE)
    assert all(" from dense)" in line and " x the fastest dense" in line for line in lines)


def test_bench_attention_measures_the_worlds_own_layers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The more of the past is read, the nearer to dense."""
    monkeypatch.setattr("sys.argv", ["main.py", "bench", "attention", "--device", "cpu", "--played", "2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("played ")]
    lost = {line.split()[1].rstrip(":"): float(line.split()[2]) for line in lines}
    assert lost.keys() == set(SPARSE)
    assert 0.5 > lost["hierarchical25"] > lost["hierarchical50"] > lost["hierarchical75"] > 0


@pytest.mark.parametrize("attention", [None, "hierarchical25"])
def test_evaluate_measures_the_frames_of_a_backend(
    attention: str | None,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_footage(tmp_path, 1, LENGTH, seed=900_000)
    asked: list[str | None] = []
    load = World.load

    def watched(*given: object, **named: object) -> World:
        asked.append(named["attention"])  # type: ignore[arg-type]
        return load(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(World, "load", watched)
    arguments = ["evaluate", "--world", str(folder), "--episodes", str(tmp_path), "--device", "cpu"]
    wish = ["--attention", attention] if attention else []
    monkeypatch.setattr("sys.argv", ["main.py", *arguments, *wish, "--ticks", "64", "--clips", "1", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code and asked == [attention]
    assert json.loads(capsys.readouterr().out)["all"]["dreamed"]


def test_the_shipped_worlds_far_layers_are_ruled_too() -> None:
    """Their share: their own frame, and a quarter of what the window and the far memory have before it."""
    config = load_config(Path(ROOT) / "world" / "shipped" / "freedoom" / "world.toml")
    sampling = config.sampling
    assert sampling.far is not None
    cache = KVCache(
        layers=config.generator.layers, batch=1, heads=2, frames=sampling.window, sink=0, tokens=40,
        head_dim=8, far=sampling.far, backend="hierarchical25",
    )  # fmt: skip
    for _ in range(160):
        cache.begin(1)
        q, k, v = torch.randn(3, 1, 2, 40, 8)
        for layer in (0, sampling.far.layers[0]):
            cache.attend(layer, q, k, v)
        cache.end()
    cache.begin(1)
    for layer, frames in ((0, 8), (sampling.far.layers[0], 24)):
        tiles = sparse_attention.choose_tiles(
            q, cache.held(layer)[0], "hierarchical25", cache.held_slots(layer)
        )
        assert int(tiles.counts.max()) == 4 + (frames - 1)
