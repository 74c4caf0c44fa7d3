"""Published low-bit checkpoints, as numbers of full size: `X.weight` in 8 bits, times the scale beside it.

Two flavours: `X.weight_scale`, one for each row or one for all, as LightX2V and others write; and
`X.scale_weight`, one for all, with a marker `scaled_fp8`, as ComfyUI has it. Scales of inputs are left out:
here they are taken from the inputs themselves (`world.low_bit`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from playhead.world.errors import WorldError

SCALES = {"weight_scale": "weight", "scale_weight": "weight", "memory_weight_scale": "memory_weight"}
"""What a scale's key ends in, and what that of its weight does."""
LEFT_OUT = ("input_scale", "scale_input", "scaled_fp8")
"""What the keys end in that play does not need."""


def unscaled(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint without its scales, by which low-bit weights were multiplied (bfloat16).

    Raises WorldError, naming `path`, for a scale without its weight, one that is no number or of another
    shape, and for integers without a scale.
    """
    found = {key: t for key, t in tensors.items() if _leaf(key) not in (*SCALES, *LEFT_OUT)}
    for key, scale in tensors.items():
        if _leaf(key) in SCALES:
            of = key.removesuffix(_leaf(key)) + SCALES[_leaf(key)]
            if of not in found:
                raise WorldError(
                    f"{path}: tensor `{key}` scales nothing, for `{of}` is missing; fetch it again"
                )
            found[of] = _multiplied(path, key, found[of], scale)
    for key, tensor in found.items():
        if _leaf(key) in SCALES.values() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WorldError(
                f"{path}: tensor `{key}` is {kind} without a scale that is known here; get it in bfloat16"
            )
    return found


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _multiplied(path: Path, key: str, weight: Tensor, scale: Tensor) -> Tensor:
    """`weight` `(N, K)` times `scale`: a number, or one a row, `(N)` or `(N, 1)`."""
    scale = scale.float()
    rows = len(weight) if weight.ndim else 0
    if scale.numel() == 1:
        scale = scale.reshape(())
    elif tuple(scale.shape) in ((rows,), (rows, 1)):
        scale = scale.reshape(rows, *[1] * (weight.ndim - 1))
    else:
        raise WorldError(
            f"{path}: tensor `{key}` has shape {tuple(scale.shape)} for a weight of {tuple(weight.shape)}; "
            "here are read scales of rows, or of a whole weight"
        )
    if not torch.isfinite(scale).all():
        raise WorldError(f"{path}: tensor `{key}` holds a NaN or an infinity; fetch the file again")
    return (weight.float() * scale).to(torch.bfloat16)
