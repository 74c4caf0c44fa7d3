"""Muon promises: many matrices at a time step as torch's own Muon steps them one by one."""

import torch
from torch import nn

from playhead.world.training.muon import MatrixMuon

SHAPES = [(6, 4), (4, 9), (6, 4), (8, 8), (4, 9)]


def weights(seed: int) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def test_matrices_of_mixed_shapes_step_as_torchs_own_muon_steps_them():
    ours, theirs = weights(0), weights(0)
    mine = MatrixMuon(ours, 0.02)
    torchs = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for seed in range(1, 5):
        for a, b, gradient in zip(ours, theirs, weights(seed), strict=True):
            a.grad, b.grad = gradient.detach().clone(), gradient.detach().clone()
        mine.step()
        torchs.step()
    for a, b, before in zip(ours, theirs, weights(0), strict=True):
        assert (a - before).abs().max() > 0.01
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)  # both orthogonalise in bfloat16


def test_a_convolution_steps_as_its_matrix_does():
    kernel = nn.Parameter(torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    matrix = nn.Parameter(kernel.detach().reshape(4, 9).clone())
    gradient = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    kernel.grad, matrix.grad = gradient.reshape(4, 1, 3, 3), gradient
    for weight in (kernel, matrix):
        MatrixMuon([weight], 0.02).step()
    assert torch.equal(kernel.detach().reshape(4, 9), matrix.detach())


def test_a_weight_without_a_gradient_stays():
    still, moved = weights(0)[:2]
    moved.grad = torch.ones_like(moved)
    before = still.detach().clone()
    MatrixMuon([still, moved], 0.02).step()
    assert torch.equal(still, before)
