"""Low bit: a generator's large linear layers in 8 or 4 bits, which take less memory and, on a GPU, less time.

Weights are rounded once, when a world loads; what they multiply in every call. In 8 bits a row of weights (an
output channel) and a token have one scale each, the largest number over the largest there is; of 4 bits
tells `world.nvfp4`. Products are summed in float32 (`int8`: exactly), scaled, the bias added, and rounded to
the world's number type. A GPU that has kernels for it uses them, once they were seen to agree with the twin;
everywhere else the twin computes the same numbers the long way, which is slower than full precision.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world import nvfp4, nvfp4_product
from playhead.world.checkpoint import tensor_digest
from playhead.world.errors import WorldError
from playhead.world.generator import Block, Generator, linear_layers
from playhead.world.low_bit_rows import fused, rescaled, rescaled_fast
from playhead.world.rounding import EIGHT_BIT, LEAST, TOPS, Rounded, quantise

PRECISIONS = {**EIGHT_BIT, "nvfp4": torch.uint8}
"""Number types that weights have, by what `--precision` calls them; of `nvfp4` two numbers a byte."""
SCALES = ("_scale", "_scale_2")
"""What the keys of scales have more than those of their weights."""
LIMIT = 0.02
"""Relative L1 error against the twin up to which a kernel is right: those of fp8 sum in about 14 bits."""
FEW_CHANNELS = 2048
"""Of fewer a square layer stays in full where others are fp8: its product is slower in fp8, of 1,536 on an
H200 by a third, since it leaves multiprocessors idle either way."""
FEWEST_ROWS = 32
"""torch's product of int8 refuses fewer than 17 rows on a GPU."""

Kinds = dict[str, tuple[tuple[int, int], ...]]
"""Shapes `(out, in)` of the large layers of a block, by kind."""
Layers = dict[tuple[int, str], nn.Linear]
"""The layers of a generator that are low bit, by block and kind."""
Full = tuple[tuple[int, ...], str]
"""Shape and digest of a weight as it was in full."""
_full: "WeakKeyDictionary[nn.Module, Full]" = WeakKeyDictionary()
"""Those of the weights of low-bit layers, by which a world is known."""
Placed = Callable[[int, Block, dict[str, nn.Linear]], None]
"""What is done with a block that was moved: its number, itself, and the layers that are called, by kind."""
_layers: "WeakKeyDictionary[Generator, Layers]" = WeakKeyDictionary()


def check_precision(precision: str | None, device: torch.device) -> None:
    """Raises WorldError for a precision that there is not, or that cannot be had on a device; None can."""
    if precision is None:
        return
    if precision not in PRECISIONS:
        *known, last = PRECISIONS
        raise WorldError(
            f"there is no precision `{precision}`; there are {', '.join(known)} and {last}, "
            "or leave --precision out"
        )
    if device.type not in ("cpu", "cuda"):
        raise WorldError(
            f"--precision {precision} needs an NVIDIA GPU or the CPU, not {device}; leave it out"
        )
    if precision == "nvfp4" and device.type == "cuda" and (why := nvfp4_product.missing(device)):
        raise WorldError(
            f"--precision nvfp4 needs an NVIDIA GPU of compute capability 10.0 or more (Blackwell): {why}"
        )


def number_types(dtype: torch.dtype, precision: str | None, cache: str | None = None) -> str:
    """A world's, in words: `bfloat16`, or `bfloat16, fp8, fp8 cache` where layers and cache are low bit."""
    held = f"{cache} cache" if cache is not None else None
    return ", ".join(filter(None, (str(dtype).removeprefix("torch."), precision, held)))


def quantised(layer: nn.Linear) -> str | None:
    """The precision of a layer that is low bit, whose weight means nothing without its scale, else None.

    Call the layer then: with rows or, one in 8 bits, with `Rounded` ones.
    """
    return next((name for name, kind in PRECISIONS.items() if layer.weight.dtype == kind), None)


def rounded_for(layer: nn.Linear) -> str | None:
    """The precision that a layer's rows may be given rounded in already: its own, if that is of 8 bits."""
    precision = quantised(layer)
    return precision if precision in EIGHT_BIT else None


def parts(block: Block) -> dict[str, tuple[nn.Linear, ...]]:
    """The layers of a block that may be low bit, by kind; those that serve as one product side by side."""
    own = block.self_attn
    found: dict[str, tuple[nn.Linear, ...]] = {"qkv": (own.q, own.k, own.v), "o": (own.o,)}
    if hasattr(block, "cross_attn"):  # whose keys and values are computed once a prompt
        found |= {"cross q": (block.cross_attn.q,), "cross o": (block.cross_attn.o,)}
    widen, narrow = linear_layers(block.ffn)
    return found | {"ffn in": (widen,), "ffn out": (narrow,)}


def context_parts(block: Block) -> dict[str, tuple[nn.Linear, ...]]:
    """The large layers of a block that only a context's keys and values need; they are never low bit."""
    if not hasattr(block, "cross_attn"):
        return {}
    return {"cross k": (block.cross_attn.k,), "cross v": (block.cross_attn.v,)}


def shapes(block: Block, of_context: bool = False) -> Kinds:
    """Those of `parts`, or of `context_parts`."""
    found = context_parts(block) if of_context else parts(block)
    return {
        kind: tuple((layer.out_features, layer.in_features) for layer in many) for kind, many in found.items()
    }


def stays_full(kind_shapes: Sequence[tuple[int, int]], precision: str) -> bool:
    """Whether such layers, which serve as one product, are left as they are where others are low bit."""
    (out, inside), *more = kind_shapes
    return precision == "fp8" and not more and out == inside < FEW_CHANNELS


def number_type(
    kind_shapes: Sequence[tuple[int, int]], precision: str | None, dtype: torch.dtype
) -> torch.dtype:
    """That of the weights of such layers in a world in `dtype`."""
    return dtype if precision is None or stays_full(kind_shapes, precision) else PRECISIONS[precision]


def rounded_parts(block: Block, precision: str) -> dict[str, tuple[nn.Linear, ...]]:
    """Those of `parts` that are low bit in that precision."""
    kinds = shapes(block)
    return {kind: many for kind, many in parts(block).items() if not stays_full(kinds[kind], precision)}


def left_full(generator: Generator, precision: str) -> str:
    """Of a generator in that precision: `, but for o`, what is left in full; nothing if nothing is."""
    kinds = shapes(generator.blocks[0])
    left = [kind for kind, many in kinds.items() if stays_full(many, precision)]
    return f", but for {' and '.join(left)}" if left else ""


def saved_bytes(generator: Generator, itemsize: int, precision: str) -> int:
    """What low bit saves of a generator's bytes, in numbers of `itemsize` bytes otherwise; scales counted."""
    products = [many for block in generator.blocks for many in rounded_parts(block, precision).values()]
    sizes = [(sum(len(layer.weight) for layer in many), many[0].weight.shape[1]) for many in products]
    if precision == "nvfp4":
        return sum(rows * columns * itemsize - nvfp4.packed_bytes(rows, columns) for rows, columns in sizes)
    return sum(rows * (columns * (itemsize - 1) - 4) for rows, columns in sizes)


def place(
    generator: Generator,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    placed: Placed | None = None,
) -> list[nn.Linear]:
    """Moves a generator to a device in `dtype`, joined; returns what `Generator.join` does, if it is in full.

    Low bit, or where each block is to be `placed` before the next one, it is moved block by block, so that
    the device never holds all of it in full. The state dict is then as published checkpoints of 8 bits have
    it: `X.weight`, and `X.weight_scale` beside. In NVFP4 the weights are codes, two a byte,
    `X.weight_scale_2` is the one scale of a weight, for each of its rows, and of layers that serve as one
    product the first has the scales of blocks of all, in tiles. For weights that no longer change. Raises
    WorldError as `check_precision` does.
    """
    if precision is None and placed is None:
        return generator.to(device, dtype).join()
    check_precision(precision, device)
    for name, child in generator.named_children():
        if name != "blocks":
            child.to(device, dtype)
    found = _layers[generator] = {}
    full: list[nn.Linear] = []
    reasons = set()
    with ThreadPoolExecutor(8) as pool:
        for number, block in enumerate(generator.blocks):
            block.to(device, dtype)
            called = {
                kind: block.self_attn.join() if kind == "qkv" else layers[0]
                for kind, layers in parts(block).items()
            }
            if precision is None:
                full += [called[kind] for kind in ("qkv", "o", "ffn in", "ffn out")]
            else:
                for kind, layers in rounded_parts(block, precision).items():
                    described = pool.map(
                        lambda part: (tuple(part.weight.shape), tensor_digest(part.weight)), layers
                    )
                    _full.update(zip(layers, described, strict=True))
                    reasons.add(_replace(called[kind], layers, precision))
                    found[number, kind] = called[kind]
            if placed is not None:
                placed(number, block, called)
    if why := "; ".join(sorted(filter(None, reasons))):
        said = f"{precision} is computed the long way, which is slower than full precision: {why}"
        logging.getLogger("playhead").warning(said)
    return full


def low_bit_layers(generator: Generator) -> Layers:
    """The layers of a generator that are low bit, those that are called; none where it is in full."""
    return _layers.get(generator, {})


def full_weights(module: nn.Module) -> dict[str, Full]:
    """Shapes and digests of the weights that low-bit layers of a module had in full, by their keys."""
    return {f"{name}.weight": _full[part] for name, part in module.named_modules() if part in _full}


def _replace(layer: nn.Linear, layers: tuple[nn.Linear, ...], precision: str) -> str:
    """Makes a layer low bit, which `layers` lie side by side in. Returns why no kernel serves it, or ""."""
    full = layer.weight
    reason = unusable(precision, full.device, full.dtype, *full.shape)
    sizes = [part.out_features for part in layers]
    if precision == "nvfp4":
        packed = nvfp4.quantise_weights(full.split(sizes))
        layer.forward = nvfp4_product.Nvfp4Product(packed, layer.bias, not reason)  # type: ignore[method-assign, assignment]
        weight = packed.codes
        layers[0].register_buffer("weight_scale", packed.blocks)
        for part, own in zip(layers, packed.scale.split(sizes), strict=True):
            part.register_buffer("weight_scale_2", own)
    else:
        weight, scale = quantise(full, precision)
        layer.forward = LowBitProduct(weight, scale, layer.bias, precision, not reason)  # type: ignore[method-assign, assignment]
        for part, own in zip(layers, scale.split(sizes), strict=True):
            part.register_buffer("weight_scale", own)
    layer.weight = nn.Parameter(weight, False)
    for part, own in zip(layers, weight.split(sizes), strict=True):
        part.weight = nn.Parameter(own, False)
    return reason


class LowBitProduct:
    """What a layer in 8 bits computes, `(…, in)` to `(…, out)`, both in one number type.

    Rows `(M, in)` may be given rounded already: what comes of them is in the number type of the bias, or in
    bfloat16.
    `weight` `(out, in)` in 8 bits, `scale` float32 `(out, 1)`. `fast`: by kernels, else by the twin.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, precision: str, fast: bool = False
    ) -> None:
        self._given = weight, scale, bias
        self._precision = precision
        kernels = {"fp8": _fp8_product, "int8": _int8_product}
        self._product = kernels[precision] if fast else None

    def of(self, weight: Tensor) -> "LowBitProduct":
        """The same of a weight that lies elsewhere."""
        return LowBitProduct(weight, *self._given[1:], self._precision, self._product is not None)

    def __call__(self, x: Tensor | Rounded) -> Tensor:
        if isinstance(x, Rounded):
            bias = self._given[2]
            return self._of(x, torch.bfloat16 if bias is None else bias.dtype)
        rows = x.reshape(-1, x.shape[-1])
        rounded = (quantise_fast if self._product is not None else quantise)(rows, self._precision)
        return self._of(rounded, x.dtype).view(*x.shape[:-1], -1)

    def _of(self, rounded: Rounded, dtype: torch.dtype) -> Tensor:
        if self._product is not None:
            return self._product(rounded, *self._given, dtype)
        return _twin(rounded, *self._given, dtype)


def twin(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, precision: str) -> Tensor:
    """The product of rows `(M, K)`, as any device computes it: what kernels are compared with."""
    return _twin(quantise(x, precision), weight, scale, bias, x.dtype)


def _twin(x: Rounded, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    # float32 holds the sums of up to 1,040 such whole numbers exactly, float64 all that there can be.
    wide = torch.float64 if weight.dtype == torch.int8 else torch.float32
    return rescaled((x.rows.to(wide) @ weight.to(wide).t()).float(), x.scale, scale, bias, dtype)


def _fp8_product(
    x: Rounded, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    rows, by_row = x
    if _scales_rows(rows.device, len(rows), *weight.shape):
        return _scaled(rows, weight, by_row, scale.t(), bias)
    one = by_row.new_ones(())
    return rescaled_fast(_scaled(rows, weight, one, one, None), by_row, scale, bias, dtype)


def _scaled(rows: Tensor, weight: Tensor, by_row: Tensor, by_column: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch._scaled_mm(
        rows, weight.t(), by_row, by_column, bias, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return found


@cache
def _scales_rows(device: torch.device, count: int, out: int, inside: int) -> bool:
    """Whether an fp8 product of `count` rows can scale rows and columns itself.

    Not with every cuBLAS, and with some not a few rows of thousands of numbers.
    """
    one = torch.zeros((1, inside), device=device).to(EIGHT_BIT["fp8"])
    scale = torch.ones((1, 1), device=device)
    bias = torch.zeros(out, dtype=torch.bfloat16, device=device)
    try:
        _scaled(one.repeat(count, 1), one.repeat(out, 1), scale.repeat(count, 1), scale.repeat(1, out), bias)
    except (RuntimeError, ValueError):
        return False
    return True


def _int8_product(
    x: Rounded, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    rows, by_row = x
    count = len(rows)
    if count < FEWEST_ROWS:
        rows = F.pad(rows, (0, 0, 0, FEWEST_ROWS - count))
    return rescaled_fast(torch._int_mm(rows, weight.t())[:count], by_row, scale, bias, dtype)


def quantise_fast(x: Tensor, precision: str) -> Rounded:
    """`quantise`, in one pass over the rows where there is Triton: it takes as long as the product else."""
    if not fused(x):
        return quantise(x, precision)
    from playhead.world.low_bit_kernels import quantise_rows

    return Rounded(*quantise_rows(x.contiguous(), EIGHT_BIT[precision], TOPS[precision], LEAST))


@cache
def unusable(precision: str, device: torch.device, dtype: torch.dtype, out: int, inside: int) -> str:
    """Why kernels cannot serve a layer `(out, in)` on a device in a number type; "" where they can.

    They are compared with the twin on random numbers.
    """
    if device.type != "cuda":
        return f"there are kernels for NVIDIA GPUs alone, and this is {device.type}"
    if precision == "nvfp4" and (lacking := nvfp4_product.missing(device)):
        return lacking
    if precision == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
        return f"{torch.cuda.get_device_name(device)} does not multiply fp8"
    if precision == "fp8" and dtype != torch.bfloat16:
        return f"its kernels give bfloat16, and the world is in {str(dtype).removeprefix('torch.')}"
    if out % 16 or (inside % 16 and precision != "nvfp4"):  # whose rows are filled up
        return f"its kernels want sizes of a multiple of 16, not {inside} to {out}"
    draw = torch.Generator(device).manual_seed(0)
    x, full = (torch.randn(n, inside, generator=draw, device=device).to(dtype) for n in (48, out))
    bias = full[:, 0].contiguous()
    try:
        found, wanted = (product(full, bias, precision, fast)(x).float() for fast in (True, False))
    except Exception as problem:  # Triton and its compiler raise whatever they like
        return f"its kernel fails ({next(iter(str(problem).splitlines()), type(problem).__name__)})"
    error = float((found - wanted).abs().sum() / wanted.abs().sum())
    return (
        "" if error <= LIMIT else f"its kernel is wrong: relative L1 error {error:.4f} from {inside} to {out}"
    )


def product(
    full: Tensor, bias: Tensor | None, precision: str, fast: bool = False
) -> Callable[[Tensor], Tensor]:
    """What a layer `(out, in)` computes in a precision: `(…, in)` to `(…, out)`, by kernels if `fast`."""
    if precision == "nvfp4":
        return nvfp4_product.Nvfp4Product(nvfp4.quantise(full, together=True), bias, fast)
    return LowBitProduct(*quantise(full, precision), bias, precision, fast)
