"""Sampling: the schedule of the public worlds, and how a clean latent comes out of noise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.sampler import Schedule, denoise, warp

SHAPE = (1, 2, 3, 4, 5)  # (B, F, C, h, w)

schedules = st.lists(st.floats(1e-3, 1), min_size=1, max_size=6, unique=True).map(
    lambda sigmas: Schedule(tuple(sorted(sigmas, reverse=True)))
)


def normal(seed: int, count: int) -> list[Tensor]:
    return list(torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("steps", "timesteps", "sigmas"),
    [
        ((1000, 750, 500, 250), (1000, 937.5, 833.3333, 625), (1, 0.9375, 0.83333, 0.625)),
        ((1000, 500), (1000, 833.3333), (1, 0.83333)),
        ((1000, 666, 333), (1000, 908.8428, 713.9794), (1, 0.90884, 0.71398)),
    ],
)
def test_listed_steps_become_the_published_levels(
    steps: tuple[float, ...], timesteps: tuple[float, ...], sigmas: tuple[float, ...]
) -> None:
    schedule = Schedule.from_steps(steps, shift=5)
    assert schedule.sigmas == pytest.approx(sigmas, abs=5e-6)
    assert [1000 * sigma for sigma in schedule.sigmas] == pytest.approx(timesteps, abs=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_levels_are_those_of_the_reference_to_the_last_bit(shift: float) -> None:
    """The reference warps a float32 `linspace`; the network feels a timestep that is a bit off."""
    s = torch.linspace(1, 0, 1001)
    reference = shift * s / (1 + (shift - 1) * s)
    assert torch.equal(torch.tensor([warp(1000 - i, shift) for i in range(1001)]), reference)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(1, 20))
def test_warping_keeps_the_ends_and_the_order(a: float, b: float, shift: float) -> None:
    bit = 3e-7  # a rounding of the reference's may go over an end or against the order
    assert warp(0, shift) == 0 and abs(warp(1000, shift) - 1) < bit
    low, high = sorted((a, b))
    assert 0 <= warp(low, shift) <= warp(high, shift) + bit
    assert warp(low, shift) > low / 1000 - bit, "a shift above 1 moves steps towards noise"


@settings(max_examples=50, deadline=None)
@given(schedules, st.integers(0, 2**32))
def test_a_perfect_generator_recovers_the_clean_latent_on_any_schedule(schedule: Schedule, seed: int) -> None:
    clean, *noises = normal(seed, 1 + len(schedule))

    def flow(x: Tensor, timestep: float) -> Tensor:
        sigma = timestep / 1000
        noise = (x - (1 - sigma) * clean) / sigma
        return noise - clean

    assert torch.allclose(denoise(flow, noises, schedule), clean, atol=2e-5)


@settings(max_examples=50, deadline=None)
@given(schedules, st.integers(0, 2**32))
def test_each_level_sees_the_last_estimate_noised_anew(schedule: Schedule, seed: int) -> None:
    """One pass a level, highest first, at 1000 sigma; fresh noise goes onto the estimate, not onto x."""
    noises, flows = normal(seed, len(schedule)), normal(seed + 1, len(schedule))
    seen: list[tuple[Tensor, float]] = []

    def predict(x: Tensor, timestep: float) -> Tensor:
        seen.append((x.clone(), timestep))
        return flows[len(seen) - 1]

    result = denoise(predict, noises, schedule)
    assert [timestep for _, timestep in seen] == [1000 * sigma for sigma in schedule.sigmas]
    estimate = torch.zeros(SHAPE)
    for i, sigma in enumerate(schedule.sigmas):
        x = noises[0] if i == 0 else (1 - sigma) * estimate + sigma * noises[i]
        assert torch.allclose(seen[i][0], x, atol=1e-6)
        estimate = x - sigma * flows[i]
    assert torch.allclose(result, estimate, atol=1e-6)


def test_a_single_step_is_one_pass_from_pure_noise() -> None:
    (x, flow) = normal(3, 2)
    calls: list[float] = []

    def predict(x: Tensor, timestep: float) -> Tensor:
        calls.append(timestep)
        return flow

    assert torch.equal(denoise(predict, [x], Schedule.from_steps([1000], shift=5)), x - flow)
    assert calls == [1000]


def test_neither_noise_nor_flow_is_written_to() -> None:
    noises, flow = normal(4, 3), normal(5, 1)[0]
    before = [tensor.clone() for tensor in (*noises, flow)]
    denoise(lambda x, t: flow, noises, Schedule((1.0, 0.7, 0.2)))
    assert all(torch.equal(a, b) for a, b in zip(before, (*noises, flow), strict=True))


@pytest.mark.parametrize("count", [2, 4])
def test_it_takes_exactly_one_draw_a_step(count: int) -> None:
    with pytest.raises(ValueError):
        denoise(lambda x, t: x, normal(6, count), Schedule((1.0, 0.7, 0.2)))
