"""Published low-bit checkpoints, as numbers of full size: `X.weight`, times the scales beside it.

Of 8 bits two flavours: `X.weight_scale`, one for each row or one for all, as LightX2V and others write; and
`X.scale_weight`, one for all, with a marker `scaled_fp8`, as ComfyUI has it. Of 4 bits LightX2V's NVFP4:
codes, two a byte, with `X.weight_scale`, those of blocks in tiles (`world.nvfp4`), and
`X.weight_global_scale`, by which all is divided, or `X.alpha` and `X.input_global_scale`, whose product is
one over it. Scales of inputs are left out: here they are taken from the inputs themselves (`world.low_bit`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from playhead.world import nvfp4
from playhead.world.errors import WorldError

SCALES = {"weight_scale": "weight", "scale_weight": "weight", "memory_weight_scale": "memory_weight"}
"""What a scale's key ends in, and what that of its weight does."""
OVER_BLOCKS = ("weight_global_scale", "alpha", "input_global_scale", "input_absmax")
"""What the keys end in that stand beside a weight of 4 bits and its scales of blocks."""
LEFT_OUT = ("input_scale", "scale_input", "scaled_fp8")
"""What the keys end in that play does not need."""


def unscaled(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint without its scales, by which low-bit weights were multiplied (bfloat16).

    Raises WorldError, naming `path`, for a scale without its weight, one that is no number or of another
    shape, and for integers without a scale.
    """
    tensors = _four_bits_read(path, tensors)
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


def _four_bits_read(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with weights of 4 bits in full, and what stood beside them left out."""
    found = dict(tensors)
    for key, codes in tensors.items():
        stem = key.removesuffix("weight")
        if _leaf(key) != "weight" or codes.dtype != torch.uint8 or f"{stem}weight_scale" not in tensors:
            continue
        beside = {leaf: found.pop(stem + leaf) for leaf in OVER_BLOCKS if stem + leaf in found}
        found[key] = _divided(path, key, codes, found.pop(f"{stem}weight_scale"), beside)
    return found


def _divided(path: Path, key: str, codes: Tensor, blocks: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
    """A weight of 4 bits, `codes` `(N, K / 2)`, in full."""
    if "weight_global_scale" in beside:
        by = 1 / beside["weight_global_scale"].float()
    elif "alpha" in beside and "input_global_scale" in beside:
        by = beside["alpha"].float() * beside["input_global_scale"].float()
    else:
        raise WorldError(
            f"{path}: tensor `{key}` has 4 bits without a `weight_global_scale`, as LightX2V has it; "
            "get it in bfloat16"
        )
    rows, columns = codes.shape[0], codes.shape[-1] * 2
    size = -(-rows // nvfp4.ROWS) * nvfp4.ROWS * -(-columns // (16 * nvfp4.COLUMNS)) * nvfp4.COLUMNS
    if codes.ndim != 2 or columns % 16 or blocks.itemsize != 1 or blocks.numel() != size or by.numel() != 1:
        raise WorldError(
            f"{path}: tensor `{key}` has shape {tuple(codes.shape)} with scales of {tuple(blocks.shape)}; "
            f"of 4 bits here are read {size} scales of 8 bits, in tiles, and one over them"
        )
    whole = nvfp4.values(nvfp4.Packed(codes, blocks.flatten().view(torch.float8_e4m3fn), by)) * by
    if not torch.isfinite(whole).all():
        raise WorldError(
            f"{path}: the scales of tensor `{key}` hold a NaN or an infinity; fetch the file again"
        )
    return whole.to(torch.bfloat16)


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
