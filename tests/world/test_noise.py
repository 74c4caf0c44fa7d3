"""`noise(seed, tick, step)` is the only randomness there is, and a function of its arguments alone."""

import math
import random
import subprocess
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.world import noise as module
from playhead.world.noise import (
    GROUP,
    DeviceNoise,
    PrefetchedNoise,
    RecordedNoise,
    _cos_sin,
    _log,
    gaussian,
    noise,
    noises,
)
from playhead.world.philox import uniforms

ROOT = Path(__file__).parents[2]
MANY = 100_000

draws = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 64))
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def draw(*draw_of: int) -> np.ndarray:
    return noise(*draw_of, (MANY,)).double().numpy()


@settings(max_examples=50, deadline=None)
@given(draws, shapes)
def test_the_same_arguments_give_the_same_bits(draw_of: tuple[int, int, int], shape: list[int]) -> None:
    first, again = noise(*draw_of, shape), noise(*draw_of, shape)
    assert torch.equal(first, again)
    assert first.shape == tuple(shape) and first.dtype == torch.float32
    assert torch.isfinite(first).all()


@settings(max_examples=50, deadline=None)
@given(draws, draws)
def test_other_arguments_give_other_noise(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    assert (a == b) == bool((noise(*a, (16,)) == noise(*b, (16,))).any())


@settings(max_examples=50, deadline=None)
@given(draws)
def test_each_argument_matters(draw_of: tuple[int, int, int]) -> None:
    seed, tick, step = draw_of
    here = noise(seed, tick, step, (16,))
    for other in ((seed + 1, tick, step), (seed, tick + 1, step), (seed, tick, step + 1)):
        assert not (here == noise(*other, (16,))).any()


def test_ticks_may_be_drawn_in_any_order() -> None:
    grid = [(tick, step) for tick in range(20) for step in range(4)]
    in_order = {draw_of: noise(7, *draw_of, (3, 5)) for draw_of in grid}
    random.Random(0).shuffle(grid)
    for draw_of in grid:
        assert torch.equal(noise(7, *draw_of, (3, 5)), in_order[draw_of])


def test_the_global_generators_neither_matter_nor_move() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = noise(1, 2, 3, (8,))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(noise(1, 2, 3, (8,)), first)


def test_another_process_draws_the_same_bits() -> None:
    code = (
        "from playhead.world.noise import noise; "
        "print(noise(2**63 + 5, 10**9, 3, (4, 5)).numpy().tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == noise(2**63 + 5, 10**9, 3, (4, 5)).numpy().tobytes().hex()


@pytest.mark.parametrize(
    ("draw_of", "first"),
    [
        (
            (0, 0, 0),
            [
                "0x1.2468940000000p+1",
                "-0x1.8ca8ce0000000p+0",
                "0x1.ecb1a00000000p+0",
                "-0x1.53d7480000000p-1",
            ],
        ),
        (
            (1234, 56, 3),
            ["0x1.9b3b460000000p-1", "0x1.c951540000000p-1", "0x1.ea66200000000p-3", "0x1.b924180000000p-7"],
        ),
        (
            (18446744073709551615, 1000000000, 1),
            [
                "0x1.37d6440000000p+0",
                "0x1.3cf2900000000p-1",
                "-0x1.3e40140000000p-1",
                "-0x1.63c4680000000p+0",
            ],
        ),
    ],
)
def test_the_values_never_change(draw_of: tuple[int, int, int], first: list[str]) -> None:
    """Recordings hold no noise, only its arguments: other values here would change every one of them."""
    assert [value.hex() for value in noise(*draw_of, (4,)).tolist()] == first


@pytest.mark.parametrize("draw_of", [(0, 0, 0), (1, 0, 0), (2**64 - 1, 10**6, 3)])
def test_it_is_standard_normal(draw_of: tuple[int, int, int]) -> None:
    """Mean, variance, skewness and kurtosis within five standard errors; the distribution within 1 %."""
    x = draw(*draw_of)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * math.sqrt(spread / MANY)
    expected = torch.special.ndtr(torch.from_numpy(np.sort(x))).numpy()
    assert np.abs(expected - (np.arange(MANY) + 0.5) / MANY).max() < 0.01


def test_neighbouring_draws_are_independent() -> None:
    """Neither values nor magnitudes of neighbouring seeds, ticks and steps go together, nor do neighbours."""
    draws = [draw(5, 9, 2), draw(6, 9, 2), draw(5, 10, 2), draw(5, 9, 3), draw(5, 2, 9), draw(9, 5, 2)]
    x = draws[0]
    half = MANY // 2
    pairs = [*combinations(draws, 2), (x[1:], x[:-1]), (x[:half], x[half:])]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(a))
        assert abs(np.corrcoef(a**2, b**2)[0, 1]) < 5 / math.sqrt(len(a))


def test_no_draw_is_a_shifted_copy_of_a_neighbour() -> None:
    """Two streams that overlapped would share values; distinct ones share next to none by chance."""
    draws = [draw(5, 9, 2), draw(6, 9, 2), draw(5, 10, 2), draw(5, 9, 3)]
    for a, b in combinations(draws, 2):
        assert len(np.intersect1d(a, b)) < 0.02 * MANY


@pytest.mark.parametrize("shape", [(1, 40, 10, 16), (3, 5), (1,), (7, 11)], ids=str)
def test_sessions_drawn_together_get_the_noise_they_get_alone(shape):
    seeds = [0, 5, 2**63, 2**100 + 3, 5]
    together = noises(seeds, 7, 1, shape)
    assert all(torch.equal(row, noise(s, 7, 1, shape)) for row, s in zip(together, seeds, strict=True))


@pytest.mark.parametrize("count", [1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP + 1])
def test_each_session_has_its_noise_drawn_once_however_many_there_are(monkeypatch, count: int) -> None:
    drawn: list[int] = []

    class Watched(np.random.Philox):
        def __init__(self, key: int, counter: list[int]) -> None:
            drawn.append(key)
            super().__init__(key=key, counter=counter)

    alone = [noise(seed, 7, 1, (3, 5)) for seed in range(count)]
    monkeypatch.setattr(np.random, "Philox", Watched)
    assert torch.equal(noises(range(count), 7, 1, (3, 5)), torch.stack(alone))
    assert sorted(drawn) == list(range(count))


@pytest.mark.parametrize("count", [1, GROUP + 1])
def test_it_is_float32_whatever_torch_makes_by_default(count: int) -> None:
    usual = noises(range(count), 7, 1, (3, 5))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = noises(range(count), 7, 1, (3, 5))
    finally:
        torch.set_default_dtype(default)
    assert found.dtype == usual.dtype == torch.float32 and torch.equal(found, usual)


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**130), 2**130), min_size=1, max_size=5),
    st.integers(0, 2**63 - 1),
    st.integers(0, 9),
    st.integers(1, 70),
)
def test_a_device_draws_the_uniform_numbers_that_numpy_draws(seeds, tick, step, count) -> None:
    """The same bits, of any seed, at any tick, however many of them."""
    wanted = np.empty((len(seeds), count))
    module._fill_uniform(seeds, tick, step, wanted)
    found = uniforms(seeds, torch.tensor(tick), step, count)
    assert found.dtype == torch.float64 and wanted.tobytes() == found.numpy().tobytes()


def test_recorded_noise_is_its_ticks_whatever_was_drawn_before() -> None:
    seeds, shape = (3, 2**63, 2**64 - 1), (2, 5, 3)
    recorded = RecordedNoise(seeds, 1, shape, torch.device("cpu"))
    kept = recorded.draw(5)
    for tick in (0, 7, 2**40, 5):
        assert torch.equal(recorded.draw(tick), noises(seeds, tick, 1, shape))
    assert torch.equal(kept, noises(seeds, 5, 1, shape)), "a later tick has overwritten it"


class StandIn:
    """A GPU where there is none. `python -m tests.tools.on_gpu` compares the bits that a real one makes."""

    type = "cuda"
    fetched = 0


@pytest.fixture
def gpu(monkeypatch) -> StandIn:
    """Its memory is a copy, and none is kept ready for it to fetch."""
    standin, empty, to = StandIn(), torch.empty, torch.Tensor.to

    def fetch(tensor: torch.Tensor, at: object, **how: object) -> torch.Tensor:
        if at is not standin:
            return to(tensor, at, **how)
        standin.fetched += 1
        return tensor.clone()

    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kind: empty(*size, **kind))
    monkeypatch.setattr(torch.Tensor, "to", fetch)
    return standin


@pytest.mark.parametrize("shape", [(1, 40, 10, 16), (3, 5), (1,), (7, 11)], ids=str)
def test_a_gpu_makes_the_same_noise(gpu: StandIn, monkeypatch, shape) -> None:
    """Of the bits that the CPU draws for few sessions, and of bits of its own for many.

    As nearly as two square roots agree: on a CPU torch does not round all of them right.
    """
    libraries: list[object] = []

    def watched(library, first, second):
        libraries.append(library)
        return gaussian(library, first, second)

    few, many = range(GROUP), range(GROUP + 2)
    expected = {seeds: noises(seeds, 7, 1, shape) for seeds in (few, many)}
    monkeypatch.setattr(module, "gaussian", watched)
    monkeypatch.setattr(module, "_recorded", lambda *asked: RecordedNoise(*asked[:-1], torch.device("cpu")))
    for draw_there, seeds in (
        (partial(noises, device=gpu), many),
        (PrefetchedNoise(gpu), many),
        (PrefetchedNoise(gpu), few),
    ):
        libraries.clear()
        gpu.fetched = 0
        made = draw_there(seeds, 7, 1, shape)
        assert set(libraries) == {torch} and gpu.fetched == (seeds is few)  # none of it is made here
        assert made.shape == expected[seeds].shape and made.dtype == torch.float32
        assert torch.allclose(made, expected[seeds], rtol=1e-6, atol=1e-7)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([(1, 3), (9,)])), max_size=8))
@settings(max_examples=30, deadline=None)
def test_noise_that_is_drawn_ahead_is_the_same(asked: list[tuple[int, int, tuple[int, ...]]]) -> None:
    """In any order, for any steps and shapes, and for more sessions than one thread draws for."""
    ahead = PrefetchedNoise()
    for tick, step, shape in asked:
        for seeds in ([5], range(GROUP + 2)):
            assert torch.equal(ahead(seeds, tick, step, shape), noises(seeds, tick, step, shape))
    assert len(ahead._begun) <= 3 * 2 * 2 * 2  # three ticks' at most


def test_seeds_are_taken_as_their_last_128_bits() -> None:
    for seed in (0, 5, 2**64, 2**127, 2**128 - 1):
        for other in (seed + 2**128, seed - 2**128, seed + 2**129):
            assert torch.equal(noise(seed, 7, 1, (4,)), noise(other, 7, 1, (4,)))
    assert not torch.equal(noise(5, 7, 1, (4,)), noise(5 + 2**127, 7, 1, (4,)))


@pytest.mark.parametrize(("drawn", "radius"), [(0.0, math.sqrt(2 * 54 * math.log(2))), (1 - 2.0**-53, 0.0)])
def test_the_rarest_bits_give_numbers_too(monkeypatch, drawn: float, radius: float) -> None:
    """All zeros are not the logarithm of zero, all ones not that of more than one."""

    class Rare:
        def __init__(self, bits: np.random.Philox) -> None: ...

        def random(self, out: np.ndarray) -> None:
            out[:] = drawn

    monkeypatch.setattr(np.random, "Generator", Rare)
    values = noise(1, 2, 3, (2,)).tolist()
    assert values == pytest.approx([radius, 0.0], abs=1e-6)  # the angle is that of zero or a whole turn


def test_one_tick_is_drawn_ahead_nothing_twice_and_three_ticks_are_kept(monkeypatch) -> None:
    """The last one for worlds that are a tick behind; what is equal for them is drawn once."""
    begun: list[int] = []

    class Watched(module._Begun):
        def __init__(self, seeds, tick, *others) -> None:
            begun.append(tick)
            super().__init__(seeds, tick, *others)

    monkeypatch.setattr(module, "_Begun", Watched)
    ahead = PrefetchedNoise()
    for tick, new in ((5, [5, 6]), (5, []), (6, [7]), (5, []), (6, [7]), (7, [8]), (5, [5]), (9, [9, 10])):
        begun.clear()
        assert torch.equal(ahead([3], tick, 0, (4,)), noise(3, tick, 0, (1, 4)))
        assert begun == new, f"at tick {tick}"
        assert {key[0] for key in ahead._begun} <= {tick - 1, tick, tick + 1}


eighths = st.sampled_from([0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(2.0**-54, 1.0), eighths), min_size=1), st.integers(0, 2**32))
def test_two_libraries_make_the_same_bits_of_the_same_uniform_numbers(rare: list[float], seed: int) -> None:
    """Only what IEEE 754 fixes is used: what numpy makes on one processor, torch makes on any device."""
    uniform = np.concatenate([rare, 1 - np.random.default_rng(seed).random(500)])
    tensor = torch.from_numpy(uniform)
    pairs = [(_log(np, uniform), _log(torch, tensor))]
    pairs += zip(_cos_sin(np, uniform), _cos_sin(torch, tensor), strict=True)
    for one, other in pairs:
        assert other.dtype == torch.float64 and one.tobytes() == other.numpy().tobytes()


@given(st.floats(2.0**-54, 1.0), st.floats(0.0, 1.0))
def test_it_is_the_transformation_of_box_and_muller(first: float, second: float) -> None:
    cos, sin = gaussian(np, np.array([first]), np.array([second]))
    radius = math.sqrt(-2 * math.log(first))
    assert cos[0] == pytest.approx(radius * math.cos(2 * math.pi * second), abs=4e-15 * max(1.0, radius))
    assert sin[0] == pytest.approx(radius * math.sin(2 * math.pi * second), abs=4e-15 * max(1.0, radius))


def test_the_logarithm_is_the_same_where_two_of_its_pieces_meet() -> None:
    """At the square root of a half, and of that times powers of two, one of both is taken for good."""
    meeting = math.sqrt(0.5) * 2.0 ** -np.array([0, 1, 2, 5, 11])
    assert [value.hex() for value in _log(np, meeting).tolist()] == [
        "-0x1.62e42fefa39eep-2",
        "-0x1.0a2b23f3bab73p+0",
        "-0x1.bb9d3beb8c86ap+0",
        "-0x1.e7f9c1e980fa9p+1",
        "-0x1.fe2804e87b348p+2",
    ]


def test_a_devices_own_noise_is_normal_and_a_function_of_tick_and_step() -> None:
    draw, other = DeviceNoise(torch.device("cpu")), DeviceNoise(torch.device("cpu"))
    first = draw(range(3), 5, 1, (100, 100))
    assert (
        first.shape == (3, 100, 100)
        and abs(float(first.mean())) < 0.02
        and abs(float(first.std()) - 1) < 0.02
    )
    draw(range(3), 6, 0, (100, 100))
    assert torch.equal(draw(range(3), 5, 1, (100, 100)), first)
    assert torch.equal(other(range(3), 5, 1, (100, 100)), first)
    assert not (first[0] == first[1]).any()
    for tick, step in ((5, 0), (6, 1), (1, 5)):
        assert not (draw(range(3), tick, step, (100, 100)) == first).any()
