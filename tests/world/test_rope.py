"""Rotary positions: scores depend on distances alone, by Wan's frequencies; no position is too large."""

import math

import pytest
import torch
from torch import Tensor

from playhead.world import rope

HEAD_DIM = 12  # six pairs: two of them turn with time, two with the row, two with the column


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("head_dim", "pairs"), [(12, (2, 2, 2)), (16, (4, 2, 2)), (64, (12, 10, 10)), (128, (22, 21, 21))]
)
def test_pairs_are_split_over_the_axes_as_in_wan(head_dim: int, pairs: tuple[int, int, int]) -> None:
    assert rope.split_pairs(head_dim) == pairs


def test_frequencies_fall_from_one_by_powers_of_theta() -> None:
    angles = rope.axis_angles([0, 1, 3], 4)
    assert angles.dtype == torch.float64
    frequencies = [1.0, 0.1, 0.01, 0.001]  # 10000 to the power of 0, -1/4, -2/4, -3/4
    expected = torch.tensor([[n * f for f in frequencies] for n in (0, 1, 3)], dtype=torch.float64)
    assert torch.allclose(angles, expected, rtol=1e-14, atol=0)
    assert torch.allclose(rope.axis_angles([1], 2, theta=100.0)[0], torch.tensor([1.0, 0.1]).double())


def test_tokens_are_told_apart_by_frame_row_and_column_in_that_order() -> None:
    frames, height, width = (5, 9), 2, 3
    angles = rope.grid_angles(frames, height, width, HEAD_DIM)
    assert angles.shape == (12, 6) and angles.dtype == torch.float64
    expected = [
        [f, f / 100, row, row / 100, column, column / 100]
        for f in frames
        for row in range(height)
        for column in range(width)
    ]
    assert torch.allclose(angles, torch.tensor(expected, dtype=torch.float64))


def test_a_shift_in_time_turns_the_pairs_of_time_alone() -> None:
    angles = rope.time_angles(7, HEAD_DIM)
    assert angles.dtype == torch.float64
    assert torch.allclose(angles, torch.tensor([7, 0.07, 0, 0, 0, 0], dtype=torch.float64))
    moved = rope.grid_angles([3], 2, 3, HEAD_DIM) + angles
    assert torch.allclose(moved, rope.grid_angles([10], 2, 3, HEAD_DIM))


def test_each_pair_turns_as_a_complex_number() -> None:
    angles = torch.tensor([[0.3, -2.0], [1.5, 0.0]], dtype=torch.float64)
    x = normal(2, 3, 2, 4)
    table = rope.table(angles)
    assert table.shape == (2, 2, 4) and table.dtype == torch.float32
    turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * torch.polar(
        torch.ones_like(angles), angles
    )
    expected = torch.view_as_real(turned).flatten(-2).float()
    assert torch.allclose(rope.rotate(x, table), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5)])
def test_a_table_has_a_row_for_each_row_of_angles(shape: tuple[int, ...]) -> None:
    angles = normal(*shape, 3).double()
    cos, sin = rope.table(angles)
    assert cos.shape == sin.shape == (*shape, 6)
    assert torch.equal(cos[..., ::2], angles.cos().float()) and torch.equal(cos[..., 1::2], cos[..., ::2])
    assert torch.equal(sin[..., 1::2], angles.sin().float()) and torch.equal(sin[..., ::2], -sin[..., 1::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_keeps_the_number_type_and_leaves_its_input(dtype: torch.dtype) -> None:
    x = normal(1, 6, HEAD_DIM).to(dtype)
    before = x.clone()
    assert rope.rotate(x, rope.table(rope.grid_angles([4], 2, 3, HEAD_DIM))).dtype == dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize("start", [0, 1000, 10**7])
def test_scores_depend_on_distances_alone_however_far_the_play_is(start: int) -> None:
    """After a week at 17 frames a second too: ten million frames lie within float64's exact integers."""
    q, k = normal(1, 1, HEAD_DIM, seed=1), normal(1, 1, HEAD_DIM, seed=2)

    def score(query: int, key: int) -> float:
        q_table, k_table = (rope.table(rope.grid_angles([n], 1, 1, HEAD_DIM)) for n in (query, key))
        return float((rope.rotate(q, q_table) * rope.rotate(k, k_table)).sum())

    assert math.isclose(score(start + 5, start), score(5, 0), abs_tol=1e-5)
    assert not math.isclose(score(start + 5, start), score(start + 9, start), abs_tol=1e-3)
