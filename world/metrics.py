"""Measures of pictures: error, sharpness, colour, and how far two sets of features are apart.

Frames are uint8 `(…, H, W, 3)`.
"""

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each frame, `(…)`; identical frames count as 60 dB."""
    error = (a.float() - b.float()).square().mean((-3, -2, -1)) / 255**2
    return -10 * torch.log10(error.clamp_min(1e-6))


def sharpness(frames: Tensor) -> Tensor:
    """Mean absolute Laplacian of the brightness of each frame, `(…)`, in grey levels."""
    return laplacian(frames.float().mean(-1)).abs().mean((-2, -1))


def laplacian(grey: Tensor) -> Tensor:
    """Four times each inner pixel of `(…, H, W)` less its neighbours, `(…, H - 2, W - 2)`."""
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return 4 * grey[..., 1:-1, 1:-1] - around


def colour(frames: Tensor) -> Tensor:
    """Mean red, green and blue, and the contrast (standard deviation of brightness), `(…, 4)`."""
    pixels = frames.float()
    contrast = pixels.mean(-1).flatten(-2).std(-1)
    return torch.cat([pixels.mean((-3, -2)), contrast.unsqueeze(-1)], -1)


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of features `(n, D)` and `(m, D)`, taken for two Gaussians.

    As in FID (Heusel et al. 2017). The trace of the covariances' geometric mean is the sum of the singular
    values of one centred set times the other, so that fewer rows than D are no trouble. NaN below two rows.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    centred = [(x.double() - x.double().mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    # Of many rows the triangle of their QR decomposition says the same.
    centred = [torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x for x in centred]
    apart = (a.double().mean(0) - b.double().mean(0)).square().sum()
    spread = sum(x.square().sum() for x in centred)
    shared = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    return max(0.0, float(apart + spread - 2 * shared))
