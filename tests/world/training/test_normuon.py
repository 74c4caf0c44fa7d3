"""NorMuon promises: rows step alike, the whole steps as far as Muon does, and its memory is an average."""

import copy

import pytest
import torch
from torch import Tensor, nn

from playhead.world.training.muon import MatrixMuon
from playhead.world.training.normuon import NorMuon

TALL, RATE, DECAY = (24, 6), 0.02, 0.01


def uneven(seed: int) -> Tensor:
    """A gradient of rows of quite unlike lengths."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(TALL, generator=draw) * torch.linspace(0.1, 3, TALL[0])[:, None]


def steps(kind: type[MatrixMuon], gradients: list[Tensor]) -> tuple[list[Tensor], MatrixMuon]:
    """What each step adds to a weight, but for its decay."""
    weight = nn.Parameter(torch.ones(TALL))
    optimizer, found = kind([weight], RATE), []
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient.clone()
        optimizer.step()
        found.append(weight.detach() - before * (1 - RATE * DECAY))
    return found, optimizer


def test_at_first_all_rows_step_as_far_where_muons_do_not():
    (even,), _ = steps(NorMuon, [uneven(0)])
    (plain,), _ = steps(MatrixMuon, [uneven(0)])
    lengths = even.norm(dim=1)
    torch.testing.assert_close(lengths, lengths.mean().expand_as(lengths), rtol=1e-3, atol=0)
    assert plain.norm(dim=1).max() > 2 * plain.norm(dim=1).min()
    # Each row goes the way that Muon has it go, only farther or less far.
    assert torch.cosine_similarity(even, plain, dim=1).min() > 0.999


def test_the_whole_matrix_steps_as_far_as_muons():
    gradients = [uneven(seed) for seed in range(4)]
    for even, plain in zip(steps(NorMuon, gradients)[0], steps(MatrixMuon, gradients)[0], strict=True):
        torch.testing.assert_close(even.norm(), plain.norm(), rtol=1e-3, atol=0)


def test_a_rows_mean_square_is_averaged_over_steps():
    gradients = [uneven(seed) for seed in range(3)]
    plain, _ = steps(MatrixMuon, gradients)
    even, optimizer = steps(NorMuon, gradients)
    scale = RATE * 0.2 * max(TALL) ** 0.5  # between the orthogonal matrix and Muon's step
    second = torch.zeros(TALL[0], 1)
    for step in plain:
        second = 0.95 * second + 0.05 * (step / scale).square().mean(1, keepdim=True)
    (state,) = optimizer.state.values()
    torch.testing.assert_close(state["second_moment"], second, rtol=1e-2, atol=0)
    expected = plain[-1] / second.sqrt()
    expected *= plain[-1].norm() / expected.norm()
    torch.testing.assert_close(even[-1], expected, rtol=2e-2, atol=1e-5)


def test_matrices_of_one_shape_step_as_each_by_itself_does():
    together = [nn.Parameter(torch.ones(TALL)) for _ in range(3)]
    optimizer = NorMuon(together, RATE)
    for first in (0, 10):
        for number, weight in enumerate(together):
            weight.grad = uneven(first + number)
        optimizer.step()
    for number, weight in enumerate(together):
        alone, _ = steps(NorMuon, [uneven(number), uneven(10 + number)])
        torch.testing.assert_close(
            weight.detach(),
            (torch.ones(TALL) * (1 - RATE * DECAY) + alone[0]) * (1 - RATE * DECAY) + alone[1],
        )


def test_a_row_without_a_gradient_stays():
    gradient = uneven(0)
    gradient[3] = 0
    (even,), _ = steps(NorMuon, [gradient])
    assert even.isfinite().all()
    assert even[3].abs().max() < 1e-6 < even[4].abs().max()


@pytest.mark.parametrize(("one", "other"), [(NorMuon, MatrixMuon), (MatrixMuon, NorMuon)])
def test_the_state_of_another_optimizer_is_refused(one: type[MatrixMuon], other: type[MatrixMuon]):
    state = copy.deepcopy(steps(one, [uneven(0)])[1].state_dict())
    with pytest.raises(ValueError, match=f"not of {other.__name__}"):
        other([nn.Parameter(torch.ones(TALL))], RATE).load_state_dict(state)
